//! The messages of `telemetry.proto`, by derive alone: no build script, and nothing to be installed.
//! `tests/protobuf.rs` compiles that file and compares.

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(oneof = "request::Kind", tags = "2, 3")]
    pub kind: Option<request::Kind>,
}

pub mod request {
    use super::*;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(message, tag = "2")]
        Reading(super::Reading),
        #[prost(message, tag = "3")]
        Query(super::Query),
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Reading {
    #[prost(string, tag = "1")]
    pub sensor: String,
    #[prost(double, tag = "2")]
    pub value: f64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Query {
    #[prost(string, tag = "1")]
    pub sensor: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(oneof = "response::Kind", tags = "2, 3, 4")]
    pub kind: Option<response::Kind>,
}

pub mod response {
    use super::*;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(uint64, tag = "2")]
        Taken(u64),
        #[prost(message, tag = "3")]
        Summary(super::Summary),
        #[prost(message, tag = "4")]
        Refusal(super::Refusal),
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Summary {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(double, tag = "2")]
    pub least: f64,
    #[prost(double, tag = "3")]
    pub mean: f64,
    #[prost(double, tag = "4")]
    pub most: f64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Refusal {
    #[prost(enumeration = "Reason", tag = "1")]
    pub reason: i32,
    #[prost(string, tag = "2")]
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Reason {
    Unspecified = 0,
    UnknownRequest = 1,
    UnknownSensor = 2,
    TooManySensors = 3,
}
