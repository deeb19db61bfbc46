//! The page, as a browser shows it: Chromium by its driver, both of Debian's packages.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::lab::until;
use super::web::{JSON, Node, TOKEN, ask};

const NAME_OF_ELEMENTS: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
struct Browser {
    driver: Child,
    addr: SocketAddr,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = ask(self.addr, "DELETE", &self.session, &[], None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// `None` where there is no driver. That is said, also where the test passes.
    fn start(node: &Node) -> Option<Self> {
        let log = node.lab.path("chromedriver.log");
        let driver = Command::new("chromedriver")
            .args(["--port=0", &format!("--log-path={}", log.display())])
            .stdout(std::fs::File::create(node.lab.path("chromedriver.out")).unwrap())
            .stderr(Stdio::null())
            .spawn();
        let driver = match driver {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let _ = writeln!(
                    std::io::stderr(),
                    "the page is not looked at: chromedriver is missing, of Debian's package chromium-driver"
                );
                return None;
            }
            driver => driver.expect("the driver starts"),
        };
        // It is ended whatever comes.
        let mut browser = Self {
            driver,
            addr: ([127, 0, 0, 1], 0).into(),
            session: String::new(),
        };
        let port: u16 = until("the driver says where it is", || {
            let said = node.lab.lines("chromedriver.out");
            let mut said = said.iter();
            let port = said
                .find_map(|line| line.split_once("successfully on port "))?
                .1;
            port.trim_end_matches('.').parse().ok()
        });
        browser.addr.set_port(port);
        let folder = node.lab.path("chromium");
        let args = [
            "--headless=new".into(),
            // In containers there is neither what its sandbox needs, nor much shared memory.
            "--no-sandbox".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-gpu".into(),
            // It asks nobody but the voter.
            "--disable-background-networking".into(),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".into(),
            format!("--user-data-dir={}", folder.display()),
        ];
        let wanted =
            json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": args}}}});
        let made = ask(
            browser.addr,
            "POST",
            "/session",
            &[JSON],
            Some(&wanted.to_string()),
        )
        .expect(200);
        browser.session = format!("/session/{}", made["value"]["sessionId"].as_str().unwrap());
        browser.act("url", json!({"url": format!("http://{}/", node.addr)}));
        Some(browser)
    }

    #[track_caller]
    fn act(&self, verb: &str, what: Value) -> Value {
        let path = format!("{}/{verb}", self.session);
        ask(self.addr, "POST", &path, &[JSON], Some(&what.to_string())).expect(200)["value"].clone()
    }

    fn script(&self, text: &str) -> Value {
        self.act("execute/sync", json!({"script": text, "args": []}))
    }

    /// What the page shows of an element.
    fn text(&self, id: &str) -> String {
        let shown = self.script(&format!("return document.getElementById('{id}').innerText"));
        shown.as_str().unwrap().into()
    }

    fn until_shows(&self, id: &str, what: &str) {
        until(&format!("{id} shows {what}"), || {
            self.text(id).contains(what).then_some(())
        });
    }

    fn element(&self, selector: &str) -> String {
        let found = self.act(
            "element",
            json!({"using": "css selector", "value": selector}),
        );
        found[NAME_OF_ELEMENTS].as_str().unwrap().into()
    }
}

#[test]
fn the_page_shows_nodes_cells_tasks_and_jobs_as_they_change() {
    let node = Node::start(1, "");
    let Some(browser) = Browser::start(&node) else {
        return;
    };
    browser.until_shows("nodes", "a (this one)");
    browser.until_shows("nodes", "linked");
    until("all is well", || {
        browser.text("trouble").is_empty().then_some(())
    });
    // What happens while it is looked at, and nothing that is shown is taken for a page.
    node.lab.once("run migration -- exit 3").expect(3);
    browser.until_shows("tasks", "migration\tfailed");
    let job = json!({"schedule": "0 0 12 * * MON-FRI", "type": "AT_MOST_ONCE", "isRecurring": true,
        "command": ["echo", "<img src=x onerror='document.title=1'>"]});
    let id = node.create(&job).expect(201)["id"].clone();
    browser.until_shows(
        "jobs",
        &format!("{id}\tSCHEDULED\tAT_MOST_ONCE\t0 0 12 * * MON-FRI UTC\techo <img"),
    );
    browser.until_shows("cells", "jobs");
    browser.until_shows("cells", "tasks");
    node.ask("POST", &format!("/api/jobs/{id}/pause"))
        .expect(200);
    browser.until_shows("jobs", "PAUSED");
    node.ask("DELETE", &format!("/api/jobs/{id}")).expect(204);
    until("it is gone", || {
        browser.text("jobs").is_empty().then_some(())
    });
    assert_eq!(browser.script("return document.title"), "once");
    assert_eq!(browser.script("return document.images.length"), 0);
}

#[test]
fn the_page_of_a_voter_with_a_token_asks_for_it() {
    let node = Node::start(1, "--http-token-file token");
    let Some(browser) = Browser::start(&node) else {
        return;
    };
    browser.until_shows("trouble", "token");
    let field = browser.element("#token");
    browser.act(&format!("element/{field}/value"), json!({"text": TOKEN}));
    let button = browser.element("#ask button");
    browser.act(&format!("element/{button}/click"), json!({}));
    browser.until_shows("nodes", "a (this one)");
    until("all is well", || {
        browser.text("trouble").is_empty().then_some(())
    });
}
