//! The header `traceparent` of the W3C recommendation Trace Context.

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const NAME: &str = "traceparent";
/// `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    trace: TraceId,
    span: SpanId,
    /// Whether the caller records it.
    pub(super) sampled: bool,
}

impl Parent {
    /// What a request says; nothing if it says nothing, or nonsense (section 3.2: then a new trace begins).
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(NAME).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::read(value.to_str().ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        // What comes behind belongs to versions that are not known here.
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = [version, trace, span, flags].map(str::len);
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        let well_formed = lengths == [2, 32, 16, 2]
            && known.bytes().all(digit)
            && version != "ff"
            && (rest.is_empty() || (version != "00" && rest.starts_with('-')));
        if !well_formed {
            return None;
        }
        let parent = Self {
            trace: TraceId::from_hex(trace).ok()?,
            span: SpanId::from_hex(span).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (parent.trace != TraceId::INVALID && parent.span != SpanId::INVALID).then_some(parent)
    }

    /// As the library wants it, recorded. What vendors add to it stays here: nothing is sent on.
    pub(super) fn context(self) -> SpanContext {
        SpanContext::new(
            self.trace,
            self.span,
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_read_with_its_flag() {
        let parent = Parent::read(GOOD).unwrap();
        assert!(parent.sampled);
        let context = parent.context();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(!Parent::read(&GOOD.replace("-01", "-00")).unwrap().sampled);
        let newer = GOOD.replacen("00", "cc", 1) + "-what-comes-later";
        assert!(Parent::read(&newer).unwrap().sampled);
    }

    #[test]
    fn nonsense_begins_a_new_trace() {
        for bad in [
            "",
            "00",
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("b7ad", "b-ad"),
            &format!("{GOOD}-more"),
            &GOOD[..54],
        ] {
            assert_eq!(Parent::read(bad), None, "{bad}");
        }
        let mut two = HeaderMap::new();
        two.append(NAME, http::HeaderValue::from_static(GOOD));
        assert!(Parent::of(&two).is_some());
        two.append(NAME, http::HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&two), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,80}") {
            let _ = Parent::read(&text);
        }
    }
}
