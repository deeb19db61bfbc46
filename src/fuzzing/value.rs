//! Values of users: whoever holds a ticket can have any bytes committed in any cell.
//!
//! None of these types contains itself. Such a type is read as deep as its bytes say, until the
//! stack is used up: nothing bounds that yet.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{VALUE_BYTES_CAP, decode_value, encode_value};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Point(f64, char),
    Named {
        name: String,
        tags: BTreeMap<String, Option<i128>>,
    },
    Many(Vec<Option<(u8, String)>>),
}

/// Reads the bytes as a `T`; what is read is written as bytes that are read as the same.
fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    match decode_value::<T>(bytes) {
        Ok(value) => {
            let again = encode_value(&value, VALUE_BYTES_CAP).expect("it was a value before");
            assert!(again.len() <= bytes.len(), "the shortest form is written");
            let value = decode_value::<T>(&again).expect("it was written by us");
            // Values are not compared, a number may be none; nor bytes, a map has no order.
            let last = encode_value(&value, VALUE_BYTES_CAP).expect("it was a value before");
            assert_eq!(last.len(), again.len());
        }
        Err(error) => assert!(error.to_string().contains("the committed value")),
    }
}

/// The first byte chooses the type.
pub(crate) fn value(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 10 {
        0 => check::<u64>(bytes),
        1 => check::<String>(bytes),
        2 => check::<Vec<u8>>(bytes),
        3 => check::<Vec<String>>(bytes),
        4 => check::<(i8, u16, i32, i64, u128, f32, bool, char)>(bytes),
        5 => check::<Option<Box<[u32]>>>(bytes),
        6 => check::<BTreeMap<String, Vec<u64>>>(bytes),
        7 => check::<HashMap<u8, (u128, [u64; 8])>>(bytes),
        8 => check::<Vec<Result<std::net::SocketAddr, std::time::Duration>>>(bytes),
        _ => check::<Shape>(bytes),
    }
}
