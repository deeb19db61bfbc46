//! Values that cannot be sent or read.

use raft_once::{ClaimError, EncodeError, Error, Once, OnceConfig, ReadError, Version};
use serde::{Deserialize, Serialize};

use crate::network;

/// A value whose `Serialize` or `Deserialize` misbehaves on purpose.
#[derive(Clone, Debug, PartialEq)]
enum Odd {
    Fine,
    WillNotEncode,
    PanicsOnDecode,
}

impl Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fine => serializer.serialize_u8(0),
            Self::WillNotEncode => Err(serde::ser::Error::custom("the pen is dry")),
            Self::PanicsOnDecode => serializer.serialize_u8(2),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Fine),
            _ => panic!("on purpose"),
        }
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_sent_is_handed_back() {
    let network = network().await;
    let config = OnceConfig::new().value_bytes_max(10);
    let cell = Once::<String>::writer_with_config(&network, "small", config);
    let too_large = EncodeError::TooLarge { bytes_max: 10 };
    let big = "x".repeat(10);
    match cell.write(big.clone()).await {
        Err(Error::Encoding(value, error)) => assert_eq!((value, error), (big.clone(), too_large)),
        other => panic!("{other:?}"),
    }
    let claimed = cell.claim(big).await;
    assert!(matches!(claimed, Err(ClaimError::Encoding(..))));
    assert!(cell.write("x".repeat(9)).await.is_ok());

    let default = Once::<Vec<u8>>::writer(&network, "default");
    let over = default.write(vec![7; 1024 * 1024]).await;
    assert!(matches!(over, Err(Error::Encoding(..))));
    let under = vec![7; 1024 * 1024 - 8];
    default.write(under.clone()).await.unwrap();
    assert_eq!(default.get_ref(), Some(&under));

    let odd = Once::<Odd>::writer(&network, "odd");
    match odd.write(Odd::WillNotEncode).await {
        Err(Error::Encoding(Odd::WillNotEncode, EncodeError::Serialize(reason))) => {
            assert!(reason.contains("the pen is dry"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let init = odd.get_or_init(async || Odd::WillNotEncode).await;
    assert!(matches!(
        init,
        Err(ClaimError::Encoding(Odd::WillNotEncode, _))
    ));
    assert!(odd.is_none());
    odd.write(Odd::Fine).await.unwrap();
    network.shutdown().await;
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_wherever_one_can_be_returned() {
    let network = network().await;
    let config = || OnceConfig::new().type_name("demo.Seed.v1");
    let text = Once::<String>::writer_with_config(&network, "seed", config());
    let number = Once::<(u64, u64)>::writer_with_config(&network, "seed", config());
    assert_eq!(text.group_id(), number.group_id());
    let waiting = number.clone();
    let waiting = tokio::spawn(async move { waiting.await_value().await });
    text.write("not two numbers".into()).await.unwrap();

    assert!(matches!(waiting.await.unwrap(), Err(ReadError::Decode(_))));
    assert!(number.is_some() && !number.is_empty() && !number.is_none());
    assert_eq!(number.read(), None);
    assert_eq!(number.get_ref(), None);
    assert!(number.decision().is_some());
    let linearizable = number.read_linearizable().await;
    assert!(matches!(linearizable, Err(ReadError::Decode(_))));
    assert!(matches!(
        number.claim((1, 2)).await,
        Err(ClaimError::Decode(_))
    ));
    let init = number.get_or_init(async || unreachable!()).await;
    assert!(matches!(init, Err(ClaimError::Decode(_))));
    // A write is acknowledged and ignored, as ever.
    assert!(number.write((1, 2)).await.unwrap() > Version::ZERO);
    assert!(format!("{number:?}").contains("undecodable"));
    network.shutdown().await;
}

#[tokio::test]
async fn a_panic_in_deserialize_is_a_decode_error_and_the_node_lives_on() {
    let network = network().await;
    let odd = Once::<Odd>::writer(&network, "odd");
    // It did win, whatever becomes of reading it.
    assert!(odd.claim(Odd::PanicsOnDecode).await.unwrap().is_won());
    match odd.wait().await {
        Err(ReadError::Decode(error)) => assert!(error.reason.contains("panicked"), "{error}"),
        other => panic!("{other:?}"),
    }
    let version = odd.version();
    assert!(odd.write(Odd::Fine).await.unwrap() > version);
    network.shutdown().await;
}
