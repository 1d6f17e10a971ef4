//! The wasmtime engine: limits, determinism, and the clock that stops what runs too long.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wasmtime::{
    Cache, Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    RegallocAlgorithm,
};

use crate::error::HostError;
use crate::host::HostOptions;

/// Table slots per instance; a policy of 100 KB uses some 60.
pub(crate) const TABLE_ELEMENTS: usize = 4096;

/// Builds the engine. The figures are measured, see the crate's documentation.
pub(crate) fn engine(options: &HostOptions, cache: Option<Cache>) -> Result<Engine, HostError> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.instances)
        .total_core_instances(options.instances.saturating_mul(4))
        .total_memories(options.instances)
        .total_tables(options.instances.saturating_mul(3))
        .max_core_instances_per_component(8)
        .max_tables_per_component(3)
        .max_memories_per_component(1)
        .max_memory_size(options.memory)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .cache(cache)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .memory_init_cow(true)
        .table_lazy_init(true)
        .max_wasm_stack(256 << 10)
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        // The same input gives the same verdict on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        // Nothing that a policy needs, and less to attack.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false);
    Engine::new(&config).map_err(|error| HostError::Engine(format!("{error:#}")))
}

/// Advances the engine's epoch for as long as its owner lives. Always running: a ticker that only
/// runs while something is evaluated is one that can be late.
#[derive(Debug)]
pub(crate) struct Ticker {
    alive: Arc<()>,
    period: Duration,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine, period: Duration) -> Result<Self, HostError> {
        let alive = Arc::new(());
        let owner = Arc::downgrade(&alive);
        let engine = engine.weak();
        thread::Builder::new()
            .name("policy-clock".to_owned())
            .spawn(move || {
                while owner.strong_count() > 0 {
                    thread::sleep(period);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            })
            .map_err(HostError::Thread)?;
        Ok(Ticker { alive, period })
    }

    /// How many ticks from now are surely no earlier than `deadline`.
    pub(crate) fn ticks(&self, deadline: Duration) -> u64 {
        debug_assert_eq!(Arc::strong_count(&self.alive), 1);
        let ticks = deadline.as_nanos().div_ceil(self.period.as_nanos().max(1));
        u64::try_from(ticks)
            .unwrap_or(u64::MAX / 2)
            .saturating_add(1)
    }
}
