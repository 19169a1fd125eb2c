//! `torrent-sim --virtual`: a network of any size in virtual time, on one core.

use piecework_core::SaturatingFrom;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use piecework_core::Table;
use piecework_sim::{
    Choke, Content, Failure, PeerGroup, Report, RunOutcome, Scenario, Spread, World,
};

use super::super::format::{Paint, count, counted, shown, size, table_text};
use super::super::progress::WorkBar;
use super::super::remote::print_json;
use super::super::{CliError, Env};

/// Options of a network in virtual time.
#[derive(Args)]
pub(super) struct VirtualArgs {
    /// Simulate links and time instead of using sockets. FILE is then a scenario, as in
    /// docs/scenarios.
    #[arg(long)]
    pub(super) r#virtual: bool,
    /// Whom peers serve, overriding the scenario.
    #[arg(long, value_name = "POLICY", requires = "virtual")]
    choke: Option<ChokeArg>,
    /// Seed of the random numbers. The same seed gives the same run.
    #[arg(long, value_name = "N", requires = "virtual")]
    seed: Option<u64>,
    /// Number of runs, each with the next seed.
    #[arg(long, value_name = "N", requires = "virtual", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Write every action of every peer to this file.
    #[arg(long, value_name = "FILE", requires = "virtual")]
    trace: Option<PathBuf>,
    /// Check the whole state of all peers after every Nth event. Much slower.
    #[arg(long, value_name = "N", requires = "virtual")]
    check_each: Option<u64>,
    /// Answer in JSON, one line for each run.
    #[arg(long, requires = "virtual")]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ChokeArg {
    TitForTat,
    Closed,
}

/// A network without a scenario.
pub(super) struct PlainNetwork {
    pub(super) seeders: u32,
    pub(super) leechers: u32,
    pub(super) size: u64,
    pub(super) piece_length: u32,
    pub(super) upload_limit: Option<u64>,
}

/// A run, and how long it took on this machine.
struct Run {
    report: Report,
    took: Duration,
}

/// Runs the network of the scenario in `file`, or a plain network.
pub(super) fn run(
    args: &VirtualArgs,
    env: &Env,
    file: Option<&Path>,
    plain: &PlainNetwork,
) -> Result<(), CliError> {
    let mut scenario = match file {
        Some(file) => read(file)?,
        None => plain.scenario(),
    };
    if let Some(choke) = args.choke {
        scenario.choke = choke.into();
    }
    scenario.check().map_err(CliError::usage_by)?;
    let mut trace = args.trace.as_deref().map(|file| create(&env.path(file))).transpose()?;
    let first = args.seed.unwrap_or(scenario.seed);
    let mut runs = Vec::new();
    for round in 0..u64::from(args.rounds) {
        let seed = first.wrapping_add(round);
        let run = simulate(args, env, &scenario, seed, trace.as_mut())?;
        if args.json {
            print_json(env, &run.report)?;
        }
        runs.push(run);
    }
    if let Some(mut trace) = trace {
        trace.flush().map_err(cannot_write)?;
    }
    if !args.json {
        let (width, paint) = (env.stdout().width(), env.stdout().paint());
        env.stdout().line(text(&scenario, &runs, width, paint))?;
    }
    let missed: usize = runs.iter().map(|run| run.report.leechers - run.report.completed).sum();
    match missed {
        0 => Ok(()),
        missed => Err(CliError::failed(format_args!(
            "{} could not complete in the scenario's time",
            counted(missed as u64, "peer")
        ))),
    }
}

fn simulate(
    args: &VirtualArgs,
    env: &Env,
    scenario: &Scenario,
    seed: u64,
    mut trace: Option<&mut BufWriter<File>>,
) -> Result<Run, CliError> {
    let begun = Instant::now();
    let mut world = World::new(scenario, seed).map_err(CliError::usage_by)?;
    if trace.is_some() {
        world.keep_log();
    }
    if let Some(each) = args.check_each {
        world.check_each(each);
    }
    let bar = WorkBar::new(env, "simulating", &scenario.name);
    let mut until = Duration::ZERO;
    let outcome = loop {
        until += STEP;
        let outcome = world.run_until(until);
        if let Some(trace) = &mut trace {
            trace.write_all(world.take_log().as_bytes()).map_err(cannot_write)?;
        }
        let (held, all) = world.bytes_held();
        bar.at(held, all);
        match outcome {
            Ok(RunOutcome::Running) => {}
            Ok(RunOutcome::Complete | RunOutcome::Ended) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    bar.clear();
    outcome.map_err(|failure: Failure| CliError::failed(failure))?;
    Ok(Run { report: world.report(), took: begun.elapsed() })
}

fn read(file: &Path) -> Result<Scenario, CliError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::failed(format_args!("`{}` cannot be read: {error}", shown(file))).because(error)
    })?;
    Scenario::parse(&text).map_err(|error| {
        CliError::failed(format_args!("`{}`: {error}", shown(file))).because(error)
    })
}

fn create(file: &Path) -> Result<BufWriter<File>, CliError> {
    let file = File::create(file).map_err(|error| {
        CliError::failed(format_args!("`{}` cannot be made: {error}", shown(file))).because(error)
    })?;
    Ok(BufWriter::new(file))
}

fn cannot_write(error: std::io::Error) -> CliError {
    CliError::failed(format_args!("the trace cannot be written: {error}"))
}

impl PlainNetwork {
    fn scenario(&self) -> Scenario {
        let rate = self.upload_limit.unwrap_or(FAST_ETHERNET);
        let mut scenario = Scenario::broadcast(self.leechers, self.size, self.piece_length, rate);
        scenario.peers[0] = PeerGroup::new("seeders", self.seeders, Content::Everything, rate);
        scenario
    }
}

impl From<ChokeArg> for Choke {
    fn from(choke: ChokeArg) -> Self {
        match choke {
            ChokeArg::TitForTat => Self::TitForTat,
            ChokeArg::Closed => Self::Closed,
        }
    }
}

/// Returns the results: a row for each run, then the groups of the last one and the use of its uplinks.
fn text(scenario: &Scenario, runs: &[Run], width: usize, paint: Paint) -> String {
    let mut text = format!(
        "{}: {} in pieces of {}\n\n",
        paint.bold(piecework_core::printable(&scenario.name)),
        size(scenario.size),
        size(scenario.piece_length.into()),
    );
    text += &table_text(&run_table(runs), width, paint);
    if let Some(run) = runs.last() {
        text += "\n\n";
        text += &table_text(&group_table(&run.report), width, paint);
        text += "\n\n";
        text += &table_text(&uplink_table(&run.report), width, paint);
        let (events, took): (u64, Duration) =
            (runs.iter().map(|run| run.report.events).sum(), runs.iter().map(|run| run.took).sum());
        let speed = events as f64 / took.as_secs_f64().max(1e-9);
        text += &paint.dim(format_args!(
            "\n\n{} events in {:.1} s, {} a second",
            count(events),
            took.as_secs_f64(),
            count(u64::saturating_from(speed)),
        ));
    }
    text
}

fn run_table(runs: &[Run]) -> Table {
    let titles = [
        "seed", "last", "× bound", "mean ×", "p50", "p99", "by seeds", "wasted", "uplinks", "bans",
    ];
    let rows = runs.iter().map(|Run { report, .. }| {
        let of = |get: fn(&Spread) -> f64| time(report.completion.as_ref().map(get));
        vec![
            report.seed.to_string(),
            time(report.makespan),
            times(report.makespan_to_bound),
            times(report.mean_to_bound),
            of(|spread| spread.p50),
            of(|spread| spread.p99),
            times(Some(report.copies_from_seeds)),
            part(report.wasted),
            part(report.uplink_use),
            count(report.bans as u64),
        ]
    });
    Table::new(titles).right(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).spare(&[9, 5, 4, 8]).rows(rows)
}

fn group_table(report: &Report) -> Table {
    let titles = ["peers", "count", "complete", "p50", "p99", "last", "copies sent", "uplinks"];
    let rows = report.groups.iter().map(|group| {
        let of = |get: fn(&Spread) -> f64| time(group.completion.as_ref().map(get));
        vec![
            piecework_core::printable(&group.name).into_owned(),
            count(group.peers as u64),
            count(group.completed as u64),
            of(|spread| spread.p50),
            of(|spread| spread.p99),
            of(|spread| spread.last),
            times(Some(group.copies_sent)),
            part(group.uplink_use),
        ]
    });
    Table::new(titles).right(&[1, 2, 3, 4, 5, 6, 7]).names(&[0]).spare(&[4, 7]).rows(rows)
}

fn uplink_table(report: &Report) -> Table {
    let used = report.uplinks.by_cause().into_iter().filter(|(_, share)| *share > 0.0);
    let rows = used.map(|(cause, share)| vec![cause.to_owned(), part(share)]);
    Table::new(["use of uplinks", "time"]).right(&[1]).rows(rows)
}

fn time(seconds: Option<f64>) -> String {
    seconds.map_or("·".to_owned(), |seconds| format!("{seconds:.2} s"))
}

fn times(value: Option<f64>) -> String {
    value.map_or("·".to_owned(), |value| format!("{value:.3}"))
}

fn part(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

/// Virtual time between two samples of everybody's progress.
const STEP: Duration = Duration::from_millis(250);

/// Default rate of each link in bytes a second: 100 Mbit/s.
const FAST_ETHERNET: u64 = 12_500_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn a_run() -> Run {
        let plain = PlainNetwork {
            seeders: 1,
            leechers: 3,
            size: 2 << 20,
            piece_length: 1 << 16,
            upload_limit: None,
        };
        let mut world = World::new(&plain.scenario(), 7).unwrap();
        assert_eq!(world.run_until(Duration::from_secs(60)), Ok(RunOutcome::Complete));
        Run { report: world.report(), took: Duration::from_secs(1) }
    }

    #[test]
    fn tables_fit_their_terminal() {
        let runs = [a_run(), a_run()];
        let scenario = Scenario::broadcast(3, 2 << 20, 1 << 16, FAST_ETHERNET);
        for width in [60, 80, 120] {
            let text = text(&scenario, &runs, width, Paint::new(false));
            let fits = |line: &str| piecework_core::columns(line) < width;
            assert!(text.lines().all(fits), "{width}:\n{text}");
            for title in
                ["SEED", "LAST", "× BOUND", "BY SEEDS", "WASTED", "COPIES SENT", "USE OF UPLINKS"]
            {
                assert!(text.contains(title), "{width}: {title}:\n{text}");
            }
        }
    }

    #[test]
    fn scenarios_of_the_documentation_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scenarios");
        let mut found = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|end| end == "toml") {
                read(&file).unwrap();
                found += 1;
            }
        }
        assert!(found >= 4, "{found} scenarios");
    }
}
