//! A process without file descriptors. The only test of this binary: the limit is the whole process's.

use std::cell::RefCell;
use std::fs::File;

use piecework_listener::Listener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_connection_that_came_without_descriptors_is_accepted_once_there_is_one() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = Listener::new(socket, "test");
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: limit.maximum }).unwrap();
    let mut open = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        open.push(file);
    }
    let open = RefCell::new(open);
    let failures = RefCell::new(0);
    let make_room = || {
        *failures.borrow_mut() += 1;
        // Not at the first attempt.
        if *failures.borrow() == 3 {
            open.borrow_mut().pop();
        }
    };
    let (_stream, peer) = listener.accept(make_room).await;
    assert_eq!(*failures.borrow(), 3);
    assert_eq!(peer, client.local_addr().unwrap());
}
