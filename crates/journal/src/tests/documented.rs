//! The queries of docs/journal.md, and their cost as the journal grows.

use rusqlite::StatementStatus;

use super::*;

/// Returns the sentence above each documented query, and its SQL.
fn documented() -> Vec<(&'static str, &'static str)> {
    let page = include_str!("../../../../docs/journal.md");
    let queries = page.split("\n```sql\n").skip(1).zip(page.split("\n```sql\n"));
    let queries = queries.map(|(behind, before)| {
        let question = before.trim_end().lines().next_back().unwrap();
        (question, behind.split("```").next().unwrap())
    });
    queries.collect()
}

/// A journal of 40 peers that gave `rows` pieces and took as many, a piece every 10 ms.
fn journal_of(dir: &tempfile::TempDir, rows: u32) -> rusqlite::Connection {
    let path = dir.path().join(format!("{rows}.sqlite"));
    let mut database = Database::open(&path).unwrap();
    let hashes = vec![7; rows as usize * 20];
    let builder = MetainfoBuilder::single_file("linux.iso", u64::from(rows) * 16_384);
    let torrent = Arc::new(builder.piece_len(16_384).build(hashes).unwrap());
    let mut known = write::RowWriter::new(1);
    let all: Vec<Record> = (0..rows)
        .flat_map(|piece| {
            let Record::Given(one) = given(&torrent, piece as u16 % 40, piece, BlockFate::Verified)
            else {
                panic!()
            };
            let time = 1_700_000_000_000 + i64::from(piece) * 10;
            let took = 20 + i64::from(piece % 7);
            let asked = Some((time - took, time));
            let fate = if piece % 50 == 49 { BlockFate::Unused } else { BlockFate::Verified };
            let given = Response { time, asked, fate, blocks: 1, bytes: 16_384, ..one };
            [Record::Given(given), sent(&torrent, piece, 1, 16_384)]
        })
        .collect();
    for batch in all.chunks(2_000) {
        let transaction = database.connection.transaction().unwrap();
        known.write(&transaction, batch).unwrap();
        transaction.commit().unwrap();
    }
    let ask = "INSERT INTO request_rows (run, time, event, via, torrent, peer, returned, complete, \
         error) VALUES (1, ?1, ?1 % 10, 0, 1, '10.0.0.1:1', 1, 1, \
         iif(?1 % 3, NULL, 'not registered'))";
    let transaction = database.connection.transaction().unwrap();
    for time in 0..rows {
        transaction.prepare_cached(ask).unwrap().execute([time]).unwrap();
    }
    transaction.commit().unwrap();
    database.connection
}

/// Runs a query to its end. Returns the number of its rows, and the steps of SQLite's virtual
/// machine.
fn cost(journal: &rusqlite::Connection, sql: &str) -> (u32, i32) {
    let mut statement = journal.prepare(sql).unwrap();
    let mut count = 0;
    let mut rows = statement.query([]).unwrap();
    while rows.next().unwrap().is_some() {
        count += 1;
    }
    drop(rows);
    (count, statement.get_status(StatementStatus::VmStep))
}

#[test]
fn documented_queries_cost_what_they_count_and_sums_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (journal_of(&dir, 2_000), journal_of(&dir, 20_000));
    let queries = documented();
    assert_eq!(queries.len(), 10);
    let of_sums = ["Who gave", "Whom did we", "Which peers", "How fast", "What came for nothing"];
    for (question, sql) in queries {
        let ((_, before), (rows, after)) = (cost(&small, sql), cost(&large, sql));
        let is_sums = of_sums.iter().any(|begin| question.starts_with(begin));
        // The tree in which distinct pieces are looked up has grown, too.
        assert!(rows > 0 || question.starts_with("Who sent wrong"), "{question}");
        assert!(after <= before.max(1_000) * 12, "{question}: {before} steps, then {after}");
        let plan = format!("EXPLAIN QUERY PLAN {sql}");
        let mut plan = large.prepare(&plan).unwrap();
        let steps = plan.query_map([], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
        // An index made for one query does not know where the rows of a torrent lie: each of its
        // spans would be searched among all of its rows, and there is a span per 15,000 or so.
        assert!(!steps.iter().any(|step| step.contains("AUTOMATIC")), "{question}: {steps:?}");
        if is_sums {
            // The same peers and minutes. Ten times as many minutes are still few.
            assert!(after < 5_000, "{question}: {after} steps for 20,000 rows");
            for step in steps {
                assert!(!step.contains("SCAN g") && !step.contains("SCAN s VIRTUAL"), "{step}");
            }
        }
    }
}

#[test]
fn sums_say_what_the_rows_say() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_of(&dir, 20_000);
    let rows = |sql: &str| -> Vec<(String, i64, i64, i64)> {
        let mut statement = journal.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(
        rows("SELECT minute, pieces, bytes, bytes_a_second FROM speed"),
        rows(
            "SELECT substr(time, 1, 16) AS minute, count(*), sum(bytes), sum(bytes) / 60 \
             FROM pieces WHERE verdict = 'verified' GROUP BY minute ORDER BY minute"
        )
    );
    assert_eq!(
        rows("SELECT peer, timed, took_ms, longest_ms FROM givers WHERE timed > 0 ORDER BY peer"),
        rows(
            "SELECT peer, count(took_ms), sum(took_ms), max(took_ms) FROM pieces \
             WHERE verdict = 'verified' GROUP BY peer ORDER BY peer"
        )
    );
}
