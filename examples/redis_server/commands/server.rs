//! What a client asks of the server itself.

use std::fmt::Write;

use greenroom::Endpoint;

use super::super::glob;
use super::super::resp::{BULK_MAX, COMMAND_MAX};
use super::super::store::{DATABASES, unix_ms};
use super::connection::VERSION;
use super::table::{COMMANDS, Command, by_name};
use super::{Answered, Call, Refusal, is, wrong_arity};

/// A command that has only subcommands: never run itself.
pub(super) fn container(call: &mut Call<'_, '_, '_>) -> Answered {
    Err(wrong_arity(&call.args[0].to_ascii_lowercase()))
}

/// The subcommands of a command.
pub(super) fn help(call: &mut Call<'_, '_, '_>) -> Answered {
    let name = call.args[0].to_ascii_lowercase();
    let subs = by_name(&name).map_or(&[][..], |command| command.subs);
    let name = String::from_utf8_lossy(&name).to_ascii_uppercase();
    call.reply.array(subs.len() * 2 + 1);
    call.reply.status(&format!(
        "{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for sub in subs {
        let word = sub.name.split_once('|').map_or(sub.name, |(_, word)| word);
        call.reply.status(&word.to_ascii_uppercase());
        call.reply.status(&format!("    {}.", sub.summary));
    }
    Ok(())
}

pub(super) fn time(call: &mut Call<'_, '_, '_>) -> Answered {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    call.reply.array(2);
    call.reply.bulk(now.as_secs().to_string().as_bytes());
    call.reply.bulk(now.subsec_micros().to_string().as_bytes());
    Ok(())
}

const SECTIONS: [&str; 9] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "cluster",
    "keyspace",
];

pub(super) fn info(call: &mut Call<'_, '_, '_>) -> Answered {
    let asked = &call.args[1..];
    let all = ["all", "default", "everything"];
    let is_all = asked.is_empty() || asked.iter().any(|word| all.iter().any(|all| is(word, all)));
    let mut text = String::new();
    for name in SECTIONS {
        if is_all || asked.iter().any(|word| is(word, name)) {
            if !text.is_empty() {
                text += "\r\n";
            }
            for line in section(call, name).lines() {
                text += line;
                text += "\r\n";
            }
        }
    }
    call.reply.text(&text);
    Ok(())
}

fn section(call: &mut Call<'_, '_, '_>, name: &str) -> String {
    let server = call.server;
    match name {
        "server" => {
            let port = match server.endpoint.get() {
                Some(Endpoint::Tcp(addr)) => addr.port(),
                _ => 0,
            };
            let uptime = (unix_ms() - server.started) / 1000;
            format!(
                "# Server\nserver_name:greenroom\nredis_version:{VERSION}\nredis_mode:standalone\n\
                 os:{}\narch_bits:{}\nprocess_id:{}\npollers:{}\ntcp_port:{port}\n\
                 uptime_in_seconds:{uptime}\nuptime_in_days:{}",
                std::env::consts::OS,
                usize::BITS,
                std::process::id(),
                server.system.pollers(),
                uptime / 86_400,
            )
        }
        "clients" => format!(
            "# Clients\nconnected_clients:{}\nblocked_clients:0",
            server.clients.len()
        ),
        "memory" => {
            let used = resident();
            format!(
                "# Memory\nused_memory:{used}\nused_memory_rss:{used}\nmaxmemory:0\n\
                 maxmemory_policy:noeviction"
            )
        }
        "persistence" => "# Persistence\nloading:0\nasync_loading:0\nrdb_bgsave_in_progress:0\n\
                          aof_enabled:0"
            .to_owned(),
        "stats" => {
            let counts = call.data.counts();
            let (channels, patterns) = server.topics.counts();
            format!(
                "# Stats\ntotal_connections_received:{}\ntotal_commands_processed:{}\n\
                 expired_keys:{}\nevicted_keys:0\nkeyspace_hits:{}\nkeyspace_misses:{}\n\
                 pubsub_channels:{channels}\npubsub_patterns:{patterns}",
                server.system.stats().accepted,
                server.commands(),
                counts.expired,
                counts.hits,
                counts.misses,
            )
        }
        "replication" => "# Replication\nrole:master\nconnected_slaves:0".to_owned(),
        "cpu" => "# CPU".to_owned(),
        "cluster" => "# Cluster\ncluster_enabled:0".to_owned(),
        _ => {
            let mut text = "# Keyspace".to_owned();
            for db in 0..DATABASES {
                let (keys, expiring) = call.data.len(db);
                if keys > 0 {
                    let _ = write!(text, "\ndb{db}:keys={keys},expires={expiring},avg_ttl=0");
                }
            }
            text
        }
    }
}

/// Bytes of memory in use, where the system tells by a file that is no file.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}

/// What clients and tools ask for. It is as it is: CONFIG SET takes no other value.
fn settings(call: &Call<'_, '_, '_>) -> Vec<(&'static str, String)> {
    let (bind, port) = match call.server.endpoint.get() {
        Some(Endpoint::Tcp(addr)) => (addr.ip().to_string(), addr.port()),
        _ => (String::new(), 0),
    };
    vec![
        ("appendonly", "no".to_owned()),
        ("bind", bind),
        ("client-query-buffer-limit", COMMAND_MAX.to_string()),
        ("databases", DATABASES.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", port.to_string()),
        ("proto-max-bulk-len", BULK_MAX.to_string()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ]
}

pub(super) fn config_get(call: &mut Call<'_, '_, '_>) -> Answered {
    let patterns = call.args[2..]
        .iter()
        .map(|pattern| pattern.to_ascii_lowercase());
    let patterns: Vec<_> = patterns.collect();
    let is_asked_for = |name: &str| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| glob::matches(pattern, name.as_bytes()))
    };
    let mut asked = settings(call);
    asked.retain(|(name, _)| is_asked_for(name));
    call.reply.map(asked.len());
    for (name, value) in asked {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(())
}

pub(super) fn config_set(call: &mut Call<'_, '_, '_>) -> Answered {
    let settings = settings(call);
    let (pairs, []) = call.args[2..].as_chunks::<2>() else {
        return Err(super::SYNTAX);
    };
    for [name, value] in pairs {
        let shown = super::shorten(name, super::SHOWN_MAX);
        let Some((_, is_now)) = settings.iter().find(|(known, _)| is(name, known)) else {
            let text = b"ERR Unknown option or number of arguments for CONFIG SET - '";
            return Err(super::one_line([text, shown, b"'"].concat()));
        };
        if is_now.as_bytes() != *value {
            let text = b"ERR CONFIG SET failed (possibly related to argument '";
            let why = b"') - can't set immutable config";
            return Err(super::one_line([text, shown, why].concat()));
        }
    }
    call.reply.ok();
    Ok(())
}

pub(super) fn config_resetstat(call: &mut Call<'_, '_, '_>) -> Answered {
    call.server.reset_commands();
    call.data.reset_counts();
    call.reply.ok();
    Ok(())
}

pub(super) fn config_rewrite(_call: &mut Call<'_, '_, '_>) -> Answered {
    Err(b"ERR The server is running without a config file"
        .as_slice()
        .into())
}

/// COMMAND alone: as COMMAND INFO of all.
pub(super) fn command(call: &mut Call<'_, '_, '_>) -> Answered {
    call.reply.array(COMMANDS.len());
    for command in COMMANDS {
        describe(call, command);
    }
    Ok(())
}

pub(super) fn command_count(call: &mut Call<'_, '_, '_>) -> Answered {
    call.reply.integer(COMMANDS.len() as i64);
    Ok(())
}

pub(super) fn command_info(call: &mut Call<'_, '_, '_>) -> Answered {
    let names = &call.args[2..];
    if names.is_empty() {
        return command(call);
    }
    call.reply.array(names.len());
    for name in names {
        match by_name(name) {
            Some(command) => describe(call, command),
            None => call.reply.nil(),
        }
    }
    Ok(())
}

fn describe(call: &mut Call<'_, '_, '_>, command: &Command) {
    let reply = &mut call.reply;
    let is_group = |word: &&str| word.starts_with('@');
    let words = || command.flags.split(' ').filter(|word| !word.is_empty());
    let (first, last, step) = command.keys.range();
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity as i64);
    reply.set(words().filter(|word| !is_group(word)).count());
    for flag in words().filter(|word| !is_group(word)) {
        reply.status(flag);
    }
    for number in [first as i64, last as i64, step as i64] {
        reply.integer(number);
    }
    // What follows from the flags, and what does not.
    let implied = [
        ("@write", command.has("write")),
        ("@read", command.has("readonly")),
        ("@admin", command.has("admin")),
        ("@dangerous", command.has("admin")),
        ("@pubsub", command.has("pubsub")),
        ("@fast", command.has("fast")),
        ("@slow", !command.has("fast")),
    ];
    let implied = implied
        .iter()
        .filter(|(_, is_so)| *is_so)
        .map(|(group, _)| *group);
    let groups: Vec<&str> = words().filter(is_group).chain(implied).collect();
    reply.set(groups.len());
    for group in groups {
        reply.status(group);
    }
    // Neither hints nor further places of keys.
    reply.array(0);
    reply.array(0);
    reply.array(command.subs.len());
    for sub in command.subs {
        describe(call, sub);
    }
}

pub(super) fn command_docs(call: &mut Call<'_, '_, '_>) -> Answered {
    let found: Vec<&Command> = match &call.args[2..] {
        [] => COMMANDS.iter().collect(),
        names => names.iter().filter_map(|name| by_name(name)).collect(),
    };
    document(call, &found);
    Ok(())
}

fn document(call: &mut Call<'_, '_, '_>, commands: &[&Command]) {
    call.reply.map(commands.len());
    for command in commands {
        call.reply.bulk(command.name.as_bytes());
        call.reply.map(3 + usize::from(!command.subs.is_empty()));
        for (name, text) in [
            ("summary", command.summary),
            ("since", command.since),
            ("group", command.group),
        ] {
            call.reply.bulk(name.as_bytes());
            call.reply.bulk(text.as_bytes());
        }
        if !command.subs.is_empty() {
            call.reply.bulk(b"subcommands");
            document(call, &command.subs.iter().collect::<Vec<_>>());
        }
    }
}

pub(super) fn command_list(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.args.len() > 2 {
        return Err(super::SYNTAX);
    }
    call.reply.array(COMMANDS.len());
    for command in COMMANDS {
        call.reply.bulk(command.name.as_bytes());
    }
    Ok(())
}

pub(super) fn command_getkeys(call: &mut Call<'_, '_, '_>) -> Answered {
    let args = &call.args[2..];
    let invalid = Refusal::Borrowed(b"ERR Invalid command specified");
    let command = super::table::find(args).map_err(|_| invalid)?.command;
    if !command.takes(args.len()) {
        let text = b"ERR Invalid number of arguments specified for command";
        return Err(text.as_slice().into());
    }
    let keys: Vec<&[u8]> = command.keys.of(args).collect();
    if keys.is_empty() {
        return Err(b"ERR The command has no key arguments".as_slice().into());
    }
    call.reply.array(keys.len());
    for key in keys {
        call.reply.bulk(key);
    }
    Ok(())
}
