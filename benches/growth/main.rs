//! How costs grow with the amount of work: a table for each subject, a column for each amount.
//!
//! `cargo bench --bench growth -- [SUBJECT …] [NUMBER …]`. Without numbers, 1,000, 10,000 and
//! 50,000 are measured (10, 30 and 100 peers), each in a separate process. Without subjects, all
//! are measured. The last column is the cost of ten times the work, from the last two amounts: 10
//! means proportional. Files are in `$TMPDIR`: point it at a tmpfs to exclude disks.
//!
//! | subject | what is so many |
//! |---|---|
//! | `seeds`, `unfinished`, `own` | torrents of a daemon: whole, such as nobody has, or whole and reported to a tracker of ours: adding, idling, answers, stopping, starting |
//! | `watch` | torrents that are added by the watch folder: what stays of them, and after a restart |
//! | `checks` | pieces: making a torrent, checking it, checking it with an interruption |
//! | `files` | files of a torrent: making, reading, checking and downloading it |
//! | `peers` | peers of `torrent-sim`: threads, and processor time for what they move |
//! | `trackers` | torrents whose tracker does not answer, beside 100 whose tracker does |
//! | `journal` | pieces given, and as many sent: the queries of docs/journal.md |

mod checks;
mod files;
mod journal;
mod peers;
mod trackers;
mod watch;

use std::process::Command;

use piecework_testkit::allocations::CountingAllocator;
use piecework_testkit::library::{Cost, IDLE, LibraryKind, MORE, live_with};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const SUBJECTS: [&str; 9] =
    ["seeds", "unfinished", "own", "watch", "checks", "files", "peers", "trackers", "journal"];

/// A figure: its name, its unit, its value.
pub struct Row(String, &'static str, f64);

/// Returns the figures for the resources that were used.
pub fn rows_of(what: &str, cost: &Cost) -> Vec<Row> {
    let row = |unit, value| Row(what.to_owned(), unit, value);
    vec![
        row("ms of CPU", cost.cpu.as_secs_f64() * 1e3),
        row("allocations", cost.calls as f64),
        row("KiB allocated", cost.bytes as f64 / 1024.0),
        row("KiB at a time", cost.peak as f64 / 1024.0),
    ]
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, subject, number] = &args[..]
        && word == "measure"
    {
        for Row(what, unit, value) in measure(subject, number.parse().unwrap()) {
            println!("{what}\t{unit}\t{value}");
        }
        return;
    }
    let numbers: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    for subject in SUBJECTS {
        if args.iter().any(|arg| arg == subject)
            || !args.iter().any(|arg| SUBJECTS.contains(&&**arg))
        {
            let usual: &[usize] =
                if subject == "peers" { &[10, 30, 100] } else { &[1_000, 10_000, 50_000] };
            print_table(subject, if numbers.is_empty() { usual } else { &numbers });
        }
    }
}

fn measure(subject: &str, number: usize) -> Vec<Row> {
    piecework_engine::raise_file_limit().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match subject {
            "checks" => checks::measure(number).await,
            "files" => files::measure(number).await,
            "peers" => peers::measure(number).await,
            "trackers" => trackers::measure(number).await,
            "watch" => watch::measure(number).await,
            "journal" => journal::measure(number),
            _ => match LibraryKind::ALL.into_iter().find(|kind| kind.name() == subject) {
                Some(kind) => measure_library(kind, number).await,
                None => panic!("`{subject}` is not one of {SUBJECTS:?}"),
            },
        }
    })
}

async fn measure_library(kind: LibraryKind, torrents: usize) -> Vec<Row> {
    let life = live_with(kind, torrents).await;
    let mut rows = rows_of("adding", &life.adding);
    let each = life.adding.kept as f64 / torrents as f64;
    rows.push(Row("adding".to_owned(), "bytes kept each", each));
    for (what, cost, times) in [
        ("one more", life.more, MORE as f64),
        ("idle, a second", life.idle, IDLE.as_secs_f64()),
        ("status", life.status, 1.0),
        ("all fields, RPC", life.fields, 1.0),
        ("status since", life.since, 1.0),
        ("status of fifty", life.page, 1.0),
        ("stopping", life.stopping, 1.0),
        ("starting", life.starting, 1.0),
    ] {
        let once = rows_of(what, &cost).into_iter();
        rows.extend(once.map(|Row(what, unit, value)| match unit {
            "KiB at a time" => Row(what, unit, value),
            _ => Row(what, unit, value / times),
        }));
    }
    rows.push(Row("stopping".to_owned(), "ms", life.stopping.took.as_secs_f64() * 1e3));
    rows.push(Row("starting".to_owned(), "ms", life.starting.took.as_secs_f64() * 1e3));
    rows
}

/// Measures each number in a separate process.
fn print_table(subject: &str, numbers: &[usize]) {
    let mut columns: Vec<Vec<(String, f64)>> = Vec::new();
    for number in numbers {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let output = again.args(["measure", subject, &number.to_string()]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            panic!("{subject} at {number} failed");
        }
        let figures = said.lines().filter_map(|line| line.rsplit_once('\t'));
        columns.push(figures.map(|(what, it)| (what.to_owned(), it.parse().unwrap())).collect());
    }
    print!("\n{:44}", format!("{subject}, at"));
    numbers.iter().for_each(|number| print!(" {number:>13}"));
    println!("  tenfold");
    for (at, (what, _)) in columns[0].iter().enumerate() {
        print!("{:44}", what.replace('\t', ", "));
        let values: Vec<f64> = columns.iter().map(|column| column[at].1).collect();
        values.iter().for_each(|value| print!(" {value:>13.1}"));
        match (&values[..], numbers) {
            ([.., before, after], [.., few, many]) if *before > 0.0 => {
                let decades = (*many as f64 / *few as f64).log10();
                println!(" {:>8.1}", (after / before).powf(1.0 / decades));
            }
            _ => println!(),
        }
    }
}
