//! One client, whatever it came through: takes lines, turns them into questions to the directory and
//! messages to its room, and writes what comes back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use greenroom::protocol::{Frame, FrameActor};
use greenroom::{Actor, Addr, AskError, Context, Outcome};

use super::allowance::Allowance;
use super::directory::{Answer, Directory, LOBBY, Question, ToDirectory};
use super::event::{Event, Said, Voice, What, Why};
use super::history::Since;
use super::room::{Room, ToRoom};
use super::{LINE_MAX, is_name};

/// Far longer than any answer takes: without one something is broken, and the connection ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one may ask for without a nickname; all else is taken for one.
const NAMELESS: [&str; 5] = ["/help", "/quit", "/nick", "/join", "/rooms"];

const HELP: &str = "/nick NAME, /who, /rooms, /join ROOM, /quit; all else is said to the room";

const BAD_NAME: &str = "a name has 1 to 20 letters, digits, - and _";

pub(crate) enum ToClient {
    Said(Said),
    Answer(Result<Answer, AskError>),
}

impl From<Said> for ToClient {
    fn from(said: Said) -> ToClient {
        ToClient::Said(said)
    }
}

/// What has not been answered yet.
enum Asked {
    Directory(Question),
    /// Who is in this room?
    Who(Addr<Room>),
    /// Let me into this room, under this name.
    Join(Addr<Room>, String),
}

pub(crate) struct Client {
    directory: Addr<Directory>,
    voice: Voice,
    allowance: Allowance,
    /// So many lines beyond it are refused one by one. Who sends even more is dropped.
    patience: Allowance,
    /// None before the first nickname.
    name: Option<String>,
    room: Option<Addr<Room>>,
    /// The room to go to once there is a nickname.
    first_room: String,
    /// From where on the client wants to know the past of the room that it goes to.
    since: Option<Since>,
    /// Reading is paused until it is answered, so that the next line finds its effect.
    asked: Option<Asked>,
    /// What a full mailbox has refused, oldest first. Invariant: while there is any, room is waited
    /// for, and reading is paused.
    unsent: VecDeque<(Addr<Room>, ToRoom)>,
}

impl Client {
    pub(crate) fn new(directory: Addr<Directory>, voice: Voice, allowance: Allowance) -> Client {
        Client {
            directory,
            voice,
            patience: allowance.clone(),
            allowance,
            name: None,
            room: None,
            first_room: LOBBY.to_owned(),
            since: None,
            asked: None,
            unsent: VecDeque::new(),
        }
    }

    fn line(&mut self, line: &[u8], ctx: &mut Context<'_, Self>) -> Outcome {
        if line.len() > LINE_MAX {
            let why = format!("that line is longer than {LINE_MAX} bytes and was not sent");
            return self.refuse(What::Line, why, ctx);
        }
        let Ok(line) = std::str::from_utf8(line) else {
            let why = "that line is not UTF-8 and was not sent";
            return self.refuse(What::Line, why, ctx);
        };
        if line.chars().any(|char| char.is_control() && char != '\t') {
            return self.refuse_line("that line has control characters in it", line, ctx);
        }
        let (mut command, mut rest) = line.split_once(' ').unwrap_or((line, ""));
        if self.name.is_none() && !NAMELESS.contains(&command) {
            (command, rest) = ("/nick", line);
        }
        match command {
            "/help" => self.reply(&Event::Note { text: HELP.into() }, ctx),
            "/quit" => self.end(Why::Quit, "goodbye", ctx),
            "/nick" => match rest.trim() {
                name if is_name(name) => {
                    self.ask_directory(Question::Name(name.to_owned()), ctx);
                    Ok(())
                }
                _ => self.refuse(What::Name, BAD_NAME, ctx),
            },
            "/join" => self.join(rest, ctx),
            "/rooms" => {
                self.ask_directory(Question::Rooms, ctx);
                Ok(())
            }
            "/who" => {
                if let Some(room) = self.room.clone() {
                    self.ask(Asked::Who(room), ctx);
                }
                Ok(())
            }
            _ if command.starts_with('/') => {
                let why = "there is no such command; /help shows those that there are";
                self.refuse(What::Line, why, ctx)
            }
            _ => {
                if let Some(room) = self.room.clone()
                    && !line.is_empty()
                {
                    self.tell(room, ToRoom::Say(ctx.id(), line.to_owned()), ctx);
                }
                Ok(())
            }
        }
    }

    /// `ROOM`, or `ROOM SINCE` for what was said there since, too.
    fn join(&mut self, rest: &str, ctx: &mut Context<'_, Self>) -> Outcome {
        let mut words = rest.split_whitespace();
        let (room, since, more) = (words.next().unwrap_or(""), words.next(), words.next());
        let since = since.map(str::parse).transpose();
        let (true, Ok(since), None) = (is_name(room), since, more) else {
            return self.refuse(What::Room, BAD_NAME, ctx);
        };
        self.since = since;
        if self.name.is_none() {
            room.clone_into(&mut self.first_room);
        } else {
            self.ask_directory(Question::Enter(room.to_owned()), ctx);
        }
        Ok(())
    }

    /// Tells the client itself.
    fn write(&mut self, event: &Event, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(text) = self.voice.write(event) {
            ctx.write_frame(text)?;
        }
        Ok(())
    }

    /// The same, and asks for a nickname as long as there is none.
    fn reply(&mut self, event: &Event, ctx: &mut Context<'_, Self>) -> Outcome {
        self.write(event, ctx)?;
        if self.name.is_none() {
            self.write(&Event::NameWanted, ctx)?;
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        what: What,
        why: impl Into<String>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        self.reply(&Event::refused(what, why), ctx)
    }

    fn refuse_line(&mut self, why: &str, line: &str, ctx: &mut Context<'_, Self>) -> Outcome {
        let refused = Event::Refused {
            what: What::Line,
            why: format!("{why} and was not sent"),
            line: Some(line.to_owned()),
        };
        self.reply(&refused, ctx)
    }

    /// Says why, and closes.
    fn end(&mut self, reason: Why, text: &str, ctx: &mut Context<'_, Self>) -> Outcome {
        if ctx.is_websocket() {
            ctx.close_with(reason.code(), text);
        } else {
            ctx.close();
        }
        let text = text.to_owned();
        self.write(&Event::Closing { reason, text }, ctx)
    }

    fn ask_directory(&mut self, question: Question, ctx: &mut Context<'_, Self>) {
        self.ask(Asked::Directory(question), ctx);
    }

    fn ask(&mut self, asked: Asked, ctx: &mut Context<'_, Self>) {
        ctx.pause();
        let me = ctx.addr().into();
        match &asked {
            Asked::Directory(question) => {
                let ask = |reply| ToDirectory::Ask(me, question.clone(), reply);
                ctx.ask(&self.directory, PATIENCE, ask, ToClient::Answer);
            }
            Asked::Who(room) => ctx.ask(room, PATIENCE, ToRoom::Who, ToClient::Answer),
            Asked::Join(room, name) => {
                let ask = |reply| ToRoom::Join(me, name.clone(), self.since, reply);
                ctx.ask(room, PATIENCE, ask, ToClient::Answer);
            }
        }
        self.asked = Some(asked);
    }

    fn answered(&mut self, asked: Asked, answer: Answer, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        match (asked, answer) {
            (_, Answer::Named(name)) => {
                let before = self.name.replace(name.clone());
                let named = Event::Named {
                    name: name.clone(),
                    is_first: before.is_none(),
                };
                self.write(&named, ctx)?;
                match self.room.clone() {
                    // The room knows it by this name.
                    Some(_) if before.as_ref() == Some(&name) => {}
                    Some(room) => self.tell(room, ToRoom::Rename(ctx.id(), name), ctx),
                    None => self.ask_directory(Question::Enter(self.first_room.clone()), ctx),
                }
            }
            (_, Answer::Place(room, name)) => self.ask(Asked::Join(room, name), ctx),
            (Asked::Join(room, _), Answer::Inside(entered, past)) => {
                self.write(&entered, ctx)?;
                for said in past {
                    ctx.write_frame(said.frame(self.voice))?;
                }
                if let Some(before) = self.room.replace(room) {
                    let me = ctx.addr().into();
                    self.tell(before, ToRoom::Leave(me), ctx);
                }
            }
            (asked, Answer::Told(event)) => {
                self.reply(&event, ctx)?;
                if let (Asked::Directory(Question::Enter(_)), None) = (asked, &self.room) {
                    // There is no such room for it. The lobby is always there, with a past of its own.
                    self.since = self.since.map(|_| Since::Ever);
                    self.ask_directory(Question::Enter(LOBBY.to_owned()), ctx);
                }
            }
            (_, Answer::Inside(..)) => unreachable!("only a room that was asked lets anybody in"),
        }
        Ok(())
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
        self.reply(&Event::Welcome, ctx)
    }

    fn message(&mut self, message: ToClient, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToClient::Said(said) => {
                // Lines of a room that was left may still be on their way.
                let is_here = self
                    .room
                    .as_ref()
                    .is_some_and(|room| room.id() == said.room);
                let is_typed = matches!(self.voice, Voice::Lines) && said.by == Some(ctx.id());
                if is_here && !is_typed {
                    ctx.write_frame(said.frame(self.voice))?;
                }
            }
            ToClient::Answer(Err(AskError::Full)) => match &self.asked {
                Some(Asked::Who(room) | Asked::Join(room, _)) => ctx.wait_for_room(room),
                _ => ctx.wait_for_room(&self.directory),
            },
            ToClient::Answer(answer) => {
                if let Some(asked) = self.asked.take() {
                    self.answered(asked, answer?, ctx)?;
                }
            }
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.asked.take() {
            Some(asked) => self.ask(asked, ctx),
            None => self.send_unsent(ctx),
        }
        Ok(())
    }

    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.end(Why::Stopping, "the server is stopping", ctx)
    }
}

impl FrameActor for Client {
    /// Takes one line, from whatever framing.
    fn frame(&mut self, line: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let now = ctx.now();
        if self.allowance.take(now) {
            self.line(&line, ctx)
        } else if self.patience.take(now) {
            let line = String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]);
            self.refuse_line("that line came too soon after the others", &line, ctx)
        } else {
            let text = "you have been dropped for sending too many lines";
            self.end(Why::Flooding, text, ctx)
        }
    }
}
