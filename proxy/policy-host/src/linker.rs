//! The getters that modules may import; the only way from a module to the host.

use std::sync::Arc;

use wasmtime::component::{
    ComponentNamedList, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};
use wasmtime::{Engine, Result, StoreContextMut, bail};

use crate::bindings::{self, types};
use crate::input::Input;
use crate::limiter::Limiter;

/// Most labels in one question. A longer list would let a module keep the host busy out of reach
/// of the deadline, which only counts in wasm code.
const MAX_LABELS: usize = 256;

/// What a store holds for one call.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) input: Option<Arc<Input>>,
}

impl State {
    fn input(&self) -> Result<&Arc<Input>> {
        match &self.input {
            Some(input) => Ok(input),
            None => bail!("inputs can only be read in evaluate"),
        }
    }
}

/// A linker with the whole contract in it and nothing else.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let mut types = linker.instance("chaperone:policy/types@0.1.0")?;
    types.resource("session", ResourceType::host::<types::Session>(), no_drop)?;
    types.resource(
        "operation",
        ResourceType::host::<types::Operation>(),
        no_drop,
    )?;
    types.resource(
        "sql-facts",
        ResourceType::host::<types::SqlFacts>(),
        no_drop,
    )?;
    session(&mut types)?;
    operation(&mut types)?;
    sql_facts(&mut types)?;
    Ok(linker)
}

fn no_drop(_: StoreContextMut<'_, State>, _: u32) -> Result<()> {
    Ok(())
}

/// A getter without arguments on the resource `R`. Handles carry no data: a call has one session
/// and one operation, so which one is meant is never in question.
fn getter<R: 'static, T>(
    instance: &mut LinkerInstance<'_, State>,
    name: &str,
    read: fn(&Input) -> T,
) -> Result<()>
where
    (T,): ComponentNamedList + Lower + 'static,
{
    instance.func_wrap(
        name,
        move |store: StoreContextMut<'_, State>, _: (Resource<R>,)| {
            Ok((read(store.data().input()?),))
        },
    )
}

/// A getter with arguments.
fn question<R: 'static, A, T>(
    instance: &mut LinkerInstance<'_, State>,
    name: &str,
    answer: fn(&Input, A) -> Result<T>,
) -> Result<()>
where
    A: 'static,
    (Resource<R>, A): ComponentNamedList + Lift + 'static,
    (T,): ComponentNamedList + Lower + 'static,
{
    instance.func_wrap(
        name,
        move |store: StoreContextMut<'_, State>, (_, argument): (Resource<R>, A)| {
            Ok((answer(store.data().input()?, argument)?,))
        },
    )
}

fn session(i: &mut LinkerInstance<'_, State>) -> Result<()> {
    type S = types::Session;
    getter::<S, _>(i, "[method]session.subject", |input| {
        input.session.subject.clone()
    })?;
    getter::<S, _>(i, "[method]session.issuer", |input| {
        input.session.issuer.clone()
    })?;
    getter::<S, Vec<types::Actor>>(i, "[method]session.actors", |input| {
        input.session.actors.iter().map(bindings::actor).collect()
    })?;
    getter::<S, _>(i, "[method]session.groups", |input| {
        input.session.groups.clone()
    })?;
    question::<S, String, _>(i, "[method]session.has-group", |input, name| {
        Ok(input.session.has_group(&name))
    })?;
    question::<S, String, _>(i, "[method]session.claim", |input, path| {
        Ok(input.session.claim(&path))
    })?;
    getter::<S, _>(i, "[method]session.purpose", |input| {
        input.session.purpose.clone()
    })?;
    getter::<S, _>(i, "[method]session.run", |input| input.session.run.clone())?;
    getter::<S, _>(i, "[method]session.target", |input| {
        input.session.target.clone()
    })?;
    getter::<S, _>(i, "[method]session.principal", |input| {
        input.session.principal.clone()
    })?;
    getter::<S, _>(i, "[method]session.client-address", |input| {
        input.session.client_address.clone()
    })?;
    getter::<S, _>(i, "[method]session.authenticated-at", |input| {
        input.session.authenticated_at
    })
}

fn operation(i: &mut LinkerInstance<'_, State>) -> Result<()> {
    type O = types::Operation;
    getter::<O, _>(i, "[method]operation.protocol", |input| {
        input.operation.protocol.clone()
    })?;
    getter::<O, _>(i, "[method]operation.command", |input| {
        input.operation.command.clone()
    })?;
    getter::<O, _>(i, "[method]operation.actions", |input| {
        bindings::actions(input.operation.actions)
    })?;
    getter::<O, _>(i, "[method]operation.text", Input::text)?;
    getter::<O, _>(i, "[method]operation.gaps", |input| {
        input.operation.gaps.clone()
    })?;
    getter::<O, _>(i, "[method]operation.objects", Input::objects)?;
    getter::<O, _>(i, "[method]operation.uses", Input::uses)?;
    getter::<O, _>(i, "[method]operation.outputs", Input::outputs)?;
    question::<O, Vec<String>, _>(i, "[method]operation.objects-labelled", |input, labels| {
        check_labels(&labels)?;
        Ok(input.operation.objects_labelled(&labels))
    })?;
    i.func_wrap(
        "[method]operation.uses-labelled",
        |store: StoreContextMut<'_, State>,
         (_, labels, usages): (Resource<O>, Vec<String>, types::Usages)| {
            check_labels(&labels)?;
            let usages = bindings::usages_from_guest(usages);
            Ok((store
                .data()
                .input()?
                .operation
                .uses_labelled(&labels, usages),))
        },
    )?;
    question::<O, Vec<String>, _>(i, "[method]operation.outputs-labelled", |input, labels| {
        check_labels(&labels)?;
        Ok(input.operation.outputs_labelled(&labels))
    })?;
    getter::<O, _>(i, "[method]operation.parameter-count", |input| {
        input.parameter_count
    })?;
    question::<O, u32, _>(i, "[method]operation.parameter", |input, index| match input
        .parameters
        .get(index as usize)
    {
        Some(value) => Ok(bindings::value(value)),
        None => bail!("there is no such parameter"),
    })?;
    getter::<O, _>(i, "[method]operation.received-at", |input| {
        input.received_at
    })?;
    getter::<O, _>(i, "[method]operation.sql", |input| {
        input
            .operation
            .sql
            .as_ref()
            .map(|_| Resource::<types::SqlFacts>::new_own(0))
    })
}

fn sql_facts(i: &mut LinkerInstance<'_, State>) -> Result<()> {
    type F = types::SqlFacts;
    getter::<F, Vec<String>>(i, "[method]sql-facts.functions", |input| {
        sql(input, |facts| facts.functions.clone())
    })?;
    getter::<F, bool>(i, "[method]sql-facts.is-filtered", |input| {
        sql(input, |facts| facts.is_filtered)
    })?;
    getter::<F, Option<u64>>(i, "[method]sql-facts.row-limit", |input| {
        sql(input, |facts| facts.row_limit)
    })?;
    getter::<F, bool>(i, "[method]sql-facts.is-read-only", |input| {
        sql(input, |facts| facts.is_read_only)
    })?;
    getter::<F, bool>(i, "[method]sql-facts.in-transaction", |input| {
        input.in_transaction
    })?;
    getter::<F, Vec<String>>(i, "[method]sql-facts.search-path", |input| {
        sql(input, |facts| facts.search_path.clone())
    })
}

/// The default of every SQL fact is its careful value; a handle exists only where facts do.
fn sql<T: Default>(input: &Input, read: fn(&chaperone_contract::SqlFacts) -> T) -> T {
    input.operation.sql.as_ref().map(read).unwrap_or_default()
}

fn check_labels(labels: &[String]) -> Result<()> {
    if labels.len() > MAX_LABELS {
        bail!("more than {MAX_LABELS} labels in one question");
    }
    Ok(())
}
