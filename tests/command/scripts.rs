//! Scripts that were written for another tool, and the recipes of docs/once.md. Engines that this
//! machine may not have are stubs on the PATH.

use super::lab::Lab;

#[test]
fn an_init_container_s_script_runs_as_it_stands() {
    let lab = Lab::new();
    lab.stub("run-migrations", "#!/bin/sh\necho migrated >> out\n");
    let script = "\
        if ! koncli once check db-init | grep -q \"has been executed\"; then\n\
          echo \"Running migrations...\"\n\
          run-migrations\n\
        fi";
    lab.script("koncli once create db-init --ttl 24h").expect(0);
    lab.script(script).expect(0);
    // It only reads: nobody has marked it.
    lab.script(script).expect(0);
    assert_eq!(lab.lines("out").len(), 2);
    // The one line that does better.
    lab.script("once run db-init -- run-migrations").expect(0);
    lab.script("once run db-init -- run-migrations").expect(0);
    lab.script(script).expect(0);
    assert_eq!(lab.lines("out").len(), 3);
}

#[test]
fn conditional_initialisation_runs_as_it_stands() {
    let lab = Lab::new();
    lab.stub("initialize-app", "#!/bin/sh\necho init >> out\n");
    lab.stub("start-app", "#!/bin/sh\necho start >> out\n");
    let script = "\
        set -e\n\
        ONCE_NAME=\"app-init\"\n\
        if koncli once check $ONCE_NAME | grep -q \"not been executed\"; then\n\
          echo \"First pod, running initialization...\"\n\
          initialize-app\n\
        else\n\
          echo \"Already initialized, skipping\"\n\
        fi\n\
        start-app";
    assert!(lab.script(script).expect(0).starts_with("First pod"));
    lab.once("run app-init -- true").expect(0);
    assert!(lab.script(script).expect(0).starts_with("Already"));
    assert_eq!(lab.lines("out"), ["init", "start", "start"]);
}

#[test]
fn a_reset_runs_as_it_stands() {
    let lab = Lab::new();
    let script = "set -e\nkoncli once delete app-init\nkoncli once create app-init --ttl 1h";
    lab.script(script).expect(0);
    lab.once("run app-init -- true").expect(0);
    lab.script(script).expect(0);
    assert!(
        lab.script("koncli once check app-init")
            .expect(0)
            .contains("has not been executed")
    );
    assert!(
        lab.script("koncli once list")
            .expect(0)
            .contains("app-init")
    );
    lab.script("koncli once dance").expect(64);
}

#[test]
fn a_running_task_counts_as_executed() {
    let lab = Lab::new();
    lab.once("claim b").expect(0);
    assert!(
        lab.script("koncli once check b")
            .expect(0)
            .contains("has been executed")
    );
}

#[test]
fn stages_wait_for_each_other() {
    let lab = Lab::new();
    let stages = "\
        (once wait stage-2-init && once run stage-3-init -- sh -c 'echo 3 >> out') &\n\
        (once wait stage-1-init && once run stage-2-init -- sh -c 'echo 2 >> out') &\n\
        once run stage-1-init -- sh -c 'echo 1 >> out'\n\
        wait";
    lab.script(stages).expect(0);
    assert_eq!(lab.lines("out"), ["1", "2", "3"]);
}

#[test]
fn batch_jobs_run_behind_once_run() {
    let lab = Lab::new();
    // What an engine would do: run what stands behind the image.
    lab.stub("docker", "#!/bin/sh\necho \"docker $*\" >> out\n");
    lab.stub("docker-compose", "#!/bin/sh\necho \"compose $*\" >> out\n");
    let daily = "once run archiver --every day -- docker run --rm -v /c.yaml:/app/config.yaml:ro audit-archiver:1.0.0 python -m archiver.main --config /app/config.yaml";
    let compose = "once run archive-now -- docker-compose run --rm archiver";
    // From cron, where there is hardly an environment, on three hosts that share a store.
    for _ in 0..3 {
        lab.script(daily).expect(0);
        lab.script(compose).expect(0);
    }
    let lines = lab.lines("out");
    let (docker, composed): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line.starts_with("docker"));
    assert_eq!(composed, ["compose run --rm archiver"]);
    // Midnight may have come between.
    assert!((1..=2).contains(&docker.len()), "{docker:?}");
}

#[test]
fn the_files_to_deploy_say_what_runs() {
    let lab = Lab::new();
    lab.stub("docker", "#!/bin/sh\necho \"$*\" >> out\n");
    let file = |name: &str| {
        let path = format!("{}/examples/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let crontab = file("crontab");
    let cron = crontab
        .lines()
        .filter_map(|line| line.splitn(6, ' ').nth(5))
        .filter(|line| line.starts_with("once run"));
    let unit = file("archiver.service");
    let unit = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/"))
        .unwrap();
    // Where the engine is, on such a host.
    let unit = unit.replace("/usr/bin/docker", "docker");
    let lines: Vec<&str> = cron.chain([&*unit]).collect();
    assert_eq!(lines.len(), 3);
    for line in lines.iter().chain(&lines) {
        lab.script(line).expect(0);
    }
    // The unit and the crontab name one job; midnight, and the full hour, may have come between.
    assert!(
        (2..=4).contains(&lab.lines("out").len()),
        "{:?}",
        lab.lines("out")
    );
    for name in ["kubernetes.yaml", "compose.yaml"] {
        let text = file(name);
        let commands = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("command: [\"once\", "));
        let commands: Vec<&str> = commands.collect();
        assert!(commands.len() >= 2, "{name}");
        for words in commands {
            let words: Vec<String> = serde_json::from_str(&format!("[{words}")).unwrap();
            // What it would run is not here: the command line was understood, and nothing claimed.
            let program = words
                .iter()
                .skip_while(|word| *word != "--")
                .nth(1)
                .unwrap();
            let line = words
                .join(" ")
                .replace(&format!("-- {program}"), "-- ./not-here");
            lab.script(&format!("once {line}")).expect(127);
        }
    }
}
