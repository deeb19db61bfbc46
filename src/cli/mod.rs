//! The command `once`: see docs/once.md. Its binary is a call of [`main`]; it is a part of the library
//! because the store of one machine is made of the same state machine as a cluster.

mod args;
mod board;
mod child;
mod cluster;
mod embedded;
mod http;
mod jobs;
mod problem;
mod resource;
mod run;
mod say;
mod serve;
mod tick;
mod undelivered;
mod verbs;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::runtime::{Builder, Runtime};

use args::{Common, Koncli, KoncliVerb, Man, Once, Resource, Verb};
use board::Board;
use problem::{Done, FAILED, Problem, USAGE};

/// Under this name it behaves as the scripts of that tool expect.
const KONCLI: &str = "koncli";

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|name| Path::new(name).file_name());
    let (done, json) = if name.is_some_and(|name| name == KONCLI) {
        match Koncli::try_parse_from(args) {
            Ok(koncli) => (runtime(false, koncli_run(&koncli)), koncli.common.json),
            Err(error) => return refuse(&error),
        }
    } else {
        match Once::try_parse_from(args) {
            Ok(once) => (start(&once), once.common.json),
            Err(error) => return refuse(&error),
        }
    };
    match done {
        Ok(code) => code.into(),
        Err(problem) => {
            say::problem(json, &problem);
            problem.code.into()
        }
    }
}

/// Help is no error.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody else could be told that this did not work.
    let _ = error.print();
    match error.use_stderr() {
        true => USAGE.into(),
        false => ExitCode::SUCCESS,
    }
}

fn start(once: &Once) -> Done {
    let common = &once.common;
    match &once.verb {
        Verb::Serve(args) => runtime(true, serve::serve(args, common)),
        Verb::Ticket(args) => serve::ticket(args),
        Verb::Secret(args) => serve::new_secret(args),
        Verb::Completions(args) => {
            let mut bytes = Vec::new();
            clap_complete::generate(args.shell, &mut Once::command(), "once", &mut bytes);
            say::print(&String::from_utf8_lossy(&bytes))
        }
        Verb::Man(args) => man(args),
        Verb::Run(args) => runtime(false, run::run(args, common)),
        Verb::Apply(args) => runtime(false, verbs::apply(common, args)),
        Verb::Jobs(args) => runtime(false, jobs::jobs(common, &args.verb)),
        verb => runtime(false, on_board(verb, common)),
    }
}

/// What is not ended when the work is: threads that wait for a lock, which end with the process.
fn runtime(is_server: bool, work: impl Future<Output = Done>) -> Done {
    let mut builder = if is_server {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    let runtime: Runtime = builder.enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

async fn on_board(verb: &Verb, common: &Common) -> Done {
    let board = Board::open(common).await?;
    let done = match verb {
        Verb::Claim(args) => verbs::claim(&board, common, args).await,
        Verb::Finish(args) => verbs::finish(&board, common, args).await,
        Verb::Check(args) => verbs::check(&board, common, &args.name, FAILED).await,
        Verb::Create(args) => verbs::create(&board, common, args).await,
        Verb::List(args) => verbs::list(&board, common, args).await,
        Verb::Get(args) => verbs::get(&board, common, args).await,
        Verb::Wait(args) => verbs::wait(&board, common, args).await,
        Verb::Delete(args) => verbs::delete(&board, common, &args.name).await,
        Verb::Reset(args) => verbs::reset(&board, common, &args.name).await,
        Verb::Resolve(args) => verbs::resolve(&board, common, args).await,
        Verb::Watch(args) => verbs::watch(&board, common, args).await,
        Verb::Deeds => verbs::deeds(&board, common).await,
        Verb::Status(_) => serve::status(&board, common).await,
        Verb::Run(_)
        | Verb::Apply(_)
        | Verb::Jobs(_)
        | Verb::Serve(_)
        | Verb::Ticket(_)
        | Verb::Secret(_)
        | Verb::Completions(_)
        | Verb::Man(_) => Err(Problem::usage("this verb needs no tasks")),
    };
    board.close().await;
    done
}

async fn koncli_run(koncli: &Koncli) -> Done {
    let (common, Resource::Once(verb)) = (&koncli.common, &koncli.resource);
    let board = Board::open(common).await?;
    let done = match verb {
        // Its scripts look at the text, and some end at the first exit code that is not 0.
        KoncliVerb::Check(args) => verbs::check(&board, common, &args.name, 0).await,
        KoncliVerb::Create(args) => verbs::create(&board, common, args).await,
        KoncliVerb::List(args) => verbs::list(&board, common, args).await,
        KoncliVerb::Delete(args) => verbs::delete(&board, common, &args.name).await,
    };
    board.close().await;
    done
}

fn man(args: &Man) -> Done {
    let written = clap_mangen::generate_to(Once::command(), &args.folder);
    written.map_err(|error| Problem::io("cannot write manual pages to", &args.folder, &error))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_are_sound() {
        Once::command().debug_assert();
        Koncli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help() {
        for verb in Once::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }
}
