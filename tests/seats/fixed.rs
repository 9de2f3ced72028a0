use std::io;

use greenroom::testing::note;
use greenroom::*;

/// Opens the server: what `main` calls, and the tests.
pub fn open(system: &System, addr: &str, seats: usize) -> io::Result<Addr<Clerk>> {
    let clerk = system.spawn(move || Clerk::new(seats));
    let ask_there = clerk.clone();
    system.listen(addr, move |_peer| Guest::new(ask_there.clone()))?;
    Ok(clerk)
}

/// Decides who sits where.
pub struct Clerk {
    seats: Vec<Option<ActorId>>,
    /// Joined for the notice of their end.
    guests: Members<Option<usize>>,
}

pub enum ToClerk {
    Take(Addr<Guest>),
    Back(usize),
    Left(Left),
    CountFree(Reply<usize>),
}

impl From<Left> for ToClerk {
    fn from(left: Left) -> ToClerk {
        ToClerk::Left(left)
    }
}

impl Clerk {
    pub fn new(seats: usize) -> Clerk {
        Clerk {
            seats: vec![None; seats],
            guests: Members::new(),
        }
    }
}

impl Actor for Clerk {
    type Message = ToClerk;

    fn message(&mut self, message: ToClerk, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToClerk::Take(guest) => {
                self.guests.join(&guest.recipient(), ctx);
                let free = self.seats.iter().position(Option::is_none);
                note(format_args!("{free:?} for {}", guest.id()));
                if let Some(seat) = free {
                    self.seats[seat] = Some(guest.id());
                }
                if guest.send(free).is_err() {
                    // Full or gone: it ends, and its `Left` brings the seat.
                    guest.close();
                }
            }
            ToClerk::Back(seat) => {
                note(format_args!("{seat} is back"));
                self.seats[seat] = None;
            }
            ToClerk::Left(left) => {
                note(format_args!("{} has left", left.member));
                self.guests.left(&left);
                let seats = self.seats.iter_mut();
                for seat in seats.filter(|seat| **seat == Some(left.member)) {
                    *seat = None;
                }
            }
            ToClerk::CountFree(reply) => {
                let free = self.seats.iter().filter(|seat| seat.is_none());
                let _ = reply.send(free.count());
            }
        }
        Ok(())
    }
}

/// A connection.
pub struct Guest {
    clerk: Addr<Clerk>,
    place: Place,
}

enum Place {
    Standing,
    Asking,
    Seated(usize),
}

impl Guest {
    pub fn new(clerk: Addr<Clerk>) -> Guest {
        Guest {
            clerk,
            place: Place::Standing,
        }
    }
}

impl Actor for Guest {
    /// What the clerk answers to `Take`: a seat, or that there is none.
    type Message = Option<usize>;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(80)? {
            match (line, &self.place) {
                (b"take", Place::Standing) => {
                    self.clerk.send(ToClerk::Take(ctx.addr()))?;
                    self.place = Place::Asking;
                }
                (b"give", Place::Seated(seat)) => {
                    self.clerk.send(ToClerk::Back(*seat))?;
                    self.place = Place::Standing;
                    ctx.write("thanks\n");
                }
                _ => {
                    ctx.write("what?\n");
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, seat: Option<usize>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.place = match seat {
            Some(seat) => {
                ctx.write(format!("seat {seat}\n"));
                Place::Seated(seat)
            }
            None => {
                ctx.write("full\n");
                Place::Standing
            }
        };
        Ok(())
    }
}
