//! One connection: turns lines into questions to the directory and messages to its room, and writes
//! what comes back.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use greenroom::{Actor, Addr, AskError, Context, FrameError, Input, Outcome};

use super::directory::{Answer, Directory, LOBBY, Question, ToDirectory};
use super::room::{Room, ToRoom};
use super::{Said, is_name};

/// Bytes of a line, without its end.
const LINE_MAX: usize = 4096;

/// Far longer than any answer takes: without one something is broken, and the connection ends.
const PATIENCE: Duration = Duration::from_secs(30);

const HELP: &str = "* /nick NAME, /who, /rooms, /join ROOM, /quit; all else is said to the room\n";

pub(crate) enum ToClient {
    Said(Said),
    Answer(Result<Answer, AskError>),
}

impl From<Said> for ToClient {
    fn from(said: Said) -> ToClient {
        ToClient::Said(said)
    }
}

pub(crate) struct Client {
    directory: Addr<Directory>,
    /// None before the first nickname.
    name: Option<String>,
    room: Option<Addr<Room>>,
    /// Within a line that was too long: what follows is skipped, up to its end.
    skipping: bool,
    /// What has not been answered yet. Reading is paused until it is, so that the next line finds
    /// its effect.
    asked: Option<Question>,
    /// What a full mailbox has refused, oldest first. Invariant: while there is any, room is waited
    /// for, and reading is paused.
    unsent: VecDeque<(Addr<Room>, ToRoom)>,
}

impl Client {
    pub(crate) fn new(directory: Addr<Directory>) -> Client {
        let unsent = VecDeque::new();
        Client {
            directory,
            name: None,
            room: None,
            skipping: false,
            asked: None,
            unsent,
        }
    }

    fn line(&mut self, line: &[u8], ctx: &mut Context<'_, Self>) {
        let Ok(line) = std::str::from_utf8(line) else {
            return self.reply("! that line is not UTF-8 and was not sent\n", ctx);
        };
        if line.chars().any(|char| char.is_control() && char != '\t') {
            return self.reply(
                "! that line has control characters in it and was not sent\n",
                ctx,
            );
        }
        let (mut command, mut name) = line.split_once(' ').unwrap_or((line, ""));
        if self.name.is_none() && !["/help", "/quit", "/nick"].contains(&command) {
            (command, name) = ("/nick", line);
        }
        let name = name.trim();
        match command {
            "/help" => self.reply(HELP, ctx),
            "/quit" => {
                ctx.close();
                self.reply("* goodbye\n", ctx);
            }
            "/nick" | "/join" if !is_name(name) => {
                self.reply("! a name has 1 to 20 letters, digits, - and _\n", ctx);
            }
            "/nick" => self.ask(Question::Name(name.to_owned()), ctx),
            "/join" => self.ask(Question::Enter(name.to_owned()), ctx),
            "/rooms" => self.ask(Question::Rooms, ctx),
            "/who" => self.ask(Question::Who, ctx),
            _ if command.starts_with('/') => {
                self.reply(
                    "! there is no such command; /help shows those that there are\n",
                    ctx,
                );
            }
            _ if line.is_empty() => {}
            _ => self.say(line, ctx),
        }
    }

    fn say(&mut self, line: &str, ctx: &mut Context<'_, Self>) {
        if let (Some(name), Some(room)) = (&self.name, &self.room) {
            let line = Bytes::from(format!("{name}: {line}\n"));
            self.tell(room.clone(), ToRoom::Say(ctx.id(), line), ctx);
        }
    }

    /// Tells the client itself, and asks for a nickname as long as there is none.
    fn reply(&mut self, text: &str, ctx: &mut Context<'_, Self>) {
        let needs_name = self.name.is_none() && !ctx.is_closing();
        let again = if needs_name {
            "* what is your nickname?\n"
        } else {
            ""
        };
        ctx.write_parts(&[text.as_bytes(), again.as_bytes()]);
    }

    fn ask(&mut self, question: Question, ctx: &mut Context<'_, Self>) {
        ctx.pause();
        match (&question, &self.room) {
            (Question::Who, Some(room)) => ctx.ask(room, PATIENCE, ToRoom::Who, ToClient::Answer),
            _ => {
                let (by, question) = (ctx.addr().into(), question.clone());
                let ask = |reply| ToDirectory::Ask(by, question, reply);
                ctx.ask(&self.directory, PATIENCE, ask, ToClient::Answer);
            }
        }
        self.asked = Some(question);
    }

    fn answered(&mut self, answer: Answer, ctx: &mut Context<'_, Self>) {
        ctx.resume();
        match answer {
            Answer::Named(name) => {
                self.name = Some(name.clone());
                match self.room.clone() {
                    Some(room) => {
                        self.reply(&format!("* you are now {name}\n"), ctx);
                        self.tell(room, ToRoom::Rename(ctx.id(), name), ctx);
                    }
                    None => self.ask(Question::Enter(LOBBY.to_owned()), ctx),
                }
            }
            Answer::Entered(room, name) => {
                let me = || ctx.addr().into();
                let (leave, join) = (ToRoom::Leave(me()), ToRoom::Join(me(), name));
                if let Some(before) = self.room.replace(room.clone()) {
                    self.tell(before, leave, ctx);
                }
                self.tell(room, join, ctx);
            }
            Answer::Text(text) => self.reply(&text, ctx),
        }
    }

    /// Sends to a room, in order and without loss: what does not go now goes when there is room.
    fn tell(&mut self, room: Addr<Room>, message: ToRoom, ctx: &mut Context<'_, Self>) {
        self.unsent.push_back((room, message));
        if self.unsent.len() == 1 {
            self.send_unsent(ctx);
        }
    }

    fn send_unsent(&mut self, ctx: &mut Context<'_, Self>) {
        while let Some((room, message)) = self.unsent.pop_front() {
            // An error but `Full` says that the room has gone. It does when nobody is in it, so
            // nobody misses anything.
            if let Err(error) = room.send(message)
                && error.is_full()
            {
                ctx.wait_for_room(&room);
                return self.unsent.push_front((room, error.into_message()));
            }
        }
    }
}

impl Actor for Client {
    type Message = ToClient;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.reply("* welcome to the chat room\n", ctx);
        Ok(())
    }

    /// Takes one line; called again while there are more, unless that one made us wait.
    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.skipping {
            self.skipping = input.line(usize::MAX)?.is_none();
            if self.skipping {
                input.take_all();
            }
            return Ok(());
        }
        match input.line(LINE_MAX) {
            Ok(Some(line)) => self.line(line, ctx),
            Ok(None) if input.at_end() => self.line(input.take_all(), ctx),
            Ok(None) => {}
            Err(FrameError::TooLong { .. }) => {
                self.reply(
                    "! that line is longer than 4096 bytes and was not sent\n",
                    ctx,
                );
                self.skipping = true;
                input.consume(LINE_MAX);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn message(&mut self, message: ToClient, ctx: &mut Context<'_, Self>) -> Outcome {
        match (message, &self.room) {
            // Lines of a room that was left may still be on their way.
            (ToClient::Said(said), Some(room)) if said.room == room.id() => {
                if said.by != Some(ctx.id()) {
                    ctx.write_bytes(said.line);
                }
            }
            (ToClient::Said(_), _) => {}
            (ToClient::Answer(Err(AskError::Full)), room) => match (&self.asked, room) {
                (Some(Question::Who), Some(room)) => ctx.wait_for_room(room),
                _ => ctx.wait_for_room(&self.directory),
            },
            (ToClient::Answer(answer), _) => {
                self.asked = None;
                self.answered(answer?, ctx);
            }
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.asked.take() {
            Some(question) => self.ask(question, ctx),
            None => self.send_unsent(ctx),
        }
        Ok(())
    }
}
