//! Medians, ratios, a table and a plot.

use std::fmt::Write as _;

use crate::workload::{Measured, Workload};

/// The rounds of one workload with one peer.
#[derive(Debug)]
pub struct Cell {
    pub workload: Workload,
    pub peer: String,
    pub rounds: Vec<Measured>,
}

impl Cell {
    fn median(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let mut figures: Vec<f64> = self.rounds.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }

    fn per_second(&self) -> f64 {
        self.median(|one| Some(one.per_second)).unwrap_or(f64::NAN)
    }
}

/// A Markdown table, one line per workload and peer.
#[must_use]
pub fn table(cells: &[Cell]) -> String {
    let mut text = String::from(
        "| workload | peer | per second | / direct | / PgBouncer | latency µs | proxy CPU µs | CPU / PgBouncer |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for cell in cells {
        let of = |peer: &str| {
            cells
                .iter()
                .find(|other| other.workload == cell.workload && other.peer == peer)
        };
        let ratio = |other: Option<&Cell>| {
            other.map_or("–".to_owned(), |other| {
                format!("{:.2}", cell.per_second() / other.per_second())
            })
        };
        let cpu = cell.median(|one| one.cpu);
        let bouncer = of("PgBouncer").and_then(|other| other.median(|one| one.cpu));
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {:.0} | {} | {} |",
            cell.workload.name,
            cell.peer,
            cell.per_second(),
            ratio(of("direct")),
            ratio(of("PgBouncer")),
            cell.median(|one| Some(one.latency)).unwrap_or(f64::NAN),
            cpu.map_or("–".to_owned(), |cpu| format!("{cpu:.1}")),
            cpu.zip(bouncer)
                .map_or("–".to_owned(), |(cpu, other)| format!(
                    "{:.2}",
                    cpu / other
                )),
        );
    }
    text
}

/// Bars: throughput of each peer as a share of direct, one group per workload.
#[must_use]
pub fn plot(cells: &[Cell]) -> String {
    const BAR: u32 = 16;
    const LEFT: u32 = 300;
    const WIDTH: f64 = 600.0;
    let mut body = String::new();
    let mut y = 30;
    let mut last = "";
    for cell in cells {
        let Some(direct) = cells
            .iter()
            .find(|other| other.workload == cell.workload && other.peer == "direct")
        else {
            continue;
        };
        if last != cell.workload.name {
            last = cell.workload.name;
            y += BAR;
        }
        let share = cell.per_second() / direct.per_second();
        let colour = match cell.peer.as_str() {
            "direct" => "#999999",
            "PgBouncer" => "#d08770",
            "relay" => "#a3be8c",
            _ => "#5e81ac",
        };
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} {}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.0}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{share:.2}</text>",
            LEFT - 8,
            y + BAR - 4,
            cell.workload.name,
            cell.peer,
            share * WIDTH,
            BAR - 3,
            f64::from(LEFT) + share * WIDTH + 6.0,
            y + BAR - 4,
        );
        y += BAR;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\">Throughput as a share of direct PostgreSQL, medians of interleaved rounds</text>\n{body}</svg>\n",
        f64::from(LEFT) + WIDTH * 1.2,
        y + 20
    )
}
