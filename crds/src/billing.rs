//! What stored bytes cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Problems;
use super::schema;

/// Millionths of a unit of currency.
const MICROS: u64 = 1_000_000;
/// The highest price, in whole units of currency.
const HIGHEST: u64 = 1_000_000;
/// Most digits behind the point.
const DECIMALS: usize = 6;

/// What stored bytes cost. What is absent is as the installation says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = super::schema::open, extend("x-kubernetes-validations" = schema::rules(&[("!has(self.currency) || has(self.price)", CURRENCY_ALONE)])))]
pub struct Billing {
    /// Price of 10^9 bytes stored for a month of 730 hours, like `"0.20"`: 0 to 1000000, with at most 6 decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = schema::PRICE))]
    pub price: Option<String>,
    /// Currency of `price`, in the three letters of ISO 4217, like `USD`; with `price` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 3), regex(pattern = schema::CURRENCY))]
    pub currency: Option<String>,
}

const CURRENCY_ALONE: &str =
    "currency goes with price: the installation's price is in the installation's currency";

impl Billing {
    /// The price in millionths of its currency; nothing if it is the installation's.
    pub fn price_micros(&self) -> Option<u64> {
        price_micros(self.price.as_deref()?).ok()
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Some(price) = &self.price {
            problems.check("price", price_micros(price).map(drop));
        }
        if let Some(code) = &self.currency {
            problems.check("currency", currency(code));
            if self.price.is_none() {
                problems.add("currency", CURRENCY_ALONE);
            }
        }
    }
}

/// A price in millionths of its currency: a decimal number from 0 to 1000000 with at most 6 decimals.
pub fn price_micros(text: &str) -> Result<u64, String> {
    let refused = || {
        format!(
            "{text:?} is no price: write it like 0.20, from 0 to {HIGHEST}, with at most {DECIMALS} decimals"
        )
    };
    let (whole, fraction) = match text.split_once('.') {
        // A point has digits on both its sides.
        Some((_, "")) => return Err(refused()),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = whole == "0" || !(whole.is_empty() || whole.starts_with('0'));
    if !is_plain || !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS {
        return Err(refused());
    }
    let units = whole.parse::<u64>().ok().filter(|units| *units <= HIGHEST);
    let fraction = format!("{fraction:0<DECIMALS$}").parse::<u64>();
    let micros = units.ok_or_else(refused)? * MICROS + fraction.map_err(|_| refused())?;
    if micros > HIGHEST * MICROS {
        return Err(refused());
    }
    Ok(micros)
}

/// The three letters of a currency (ISO 4217).
pub fn currency(text: &str) -> Result<(), String> {
    let valid = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    valid
        .then_some(())
        .ok_or_else(|| format!("{text:?} is no currency: write its three capital letters, like USD"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_of_prices() {
        let cases = [
            ("0", Some(0)),
            ("0.2", Some(200_000)),
            ("0.20", Some(200_000)),
            ("12.000001", Some(12_000_001)),
            ("999999.999999", Some(999_999_999_999)),
            ("1000000", Some(1_000_000_000_000)),
            ("1000000.000000", Some(1_000_000_000_000)),
            ("1000000.000001", None),
            ("1000001", None),
            ("0.0000001", None),
            ("00.2", None),
            ("007", None),
            (".5", None),
            ("1.", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1,5", None),
            ("1.2.3", None),
            ("٣", None),
            ("99999999999999999999", None),
        ];
        for (text, micros) in cases {
            assert_eq!(price_micros(text).ok(), micros, "{text}");
        }
    }

    #[test]
    fn what_is_absent_is_the_installations() {
        let billing = |value: serde_json::Value| serde_json::from_value::<Billing>(value).unwrap();
        let priced = billing(serde_json::json!({ "price": "0.023", "currency": "EUR" }));
        assert_eq!(priced.price_micros(), Some(23_000));
        assert_eq!(billing(serde_json::json!({})).price_micros(), None);
    }

    #[test]
    fn a_currency_is_three_capital_letters() {
        assert_eq!(currency("USD"), Ok(()));
        for text in ["", "usd", "US", "USDT", "U$D", "ÄÖ"] {
            assert!(currency(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_number_of_millionths_comes_back(micros in 0..=HIGHEST * MICROS) {
            let text = format!("{}.{:06}", micros / MICROS, micros % MICROS);
            prop_assert_eq!(price_micros(&text), Ok(micros));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (price_micros(&text), currency(&text));
        }
    }
}
