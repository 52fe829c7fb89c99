//! The data of options, read. Everything here is what a client wrote.

use crate::protocol::MAX_STRING_BYTES;

/// The data makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// What comes with `INFO` and `GO`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct InfoRequest<'a> {
    pub(crate) export: &'a str,
    /// What the client asks to be told.
    pub(crate) items: Vec<u16>,
}

/// What comes with `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct MetaRequest<'a> {
    pub(crate) export: &'a str,
    pub(crate) queries: Vec<&'a str>,
}

impl<'a> InfoRequest<'a> {
    pub(crate) fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut data = Data(data);
        let export = data.string()?;
        let number = data.u16()?;
        let items = (0..number).map(|_| data.u16()).collect::<Result<_, _>>()?;
        data.end()?;
        Ok(Self { export, items })
    }
}

impl<'a> MetaRequest<'a> {
    pub(crate) fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut data = Data(data);
        let export = data.string()?;
        let number = data.u32()?;
        // Each takes data, so a wrong number ends at the data's end.
        let queries = (0..number).map(|_| data.string()).collect::<Result<_, _>>()?;
        data.end()?;
        Ok(Self { export, queries })
    }
}

/// An export's name by itself: what comes with `EXPORT_NAME`.
pub(crate) fn name(data: &[u8]) -> Result<&str, Malformed> {
    if data.len() > MAX_STRING_BYTES {
        return Err(Malformed);
    }
    std::str::from_utf8(data).map_err(|_| Malformed)
}

/// What is left to read.
struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A string behind its length.
    fn string(&mut self) -> Result<&'a str, Malformed> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        name(bytes)
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(export in "\\PC{0,20}", items in proptest::collection::vec(any::<u16>(), 0..5),
                                   queries in proptest::collection::vec("\\PC{0,20}", 0..5)) {
            let mut info = string(&export);
            info.extend((items.len() as u16).to_be_bytes());
            info.extend(items.iter().flat_map(|item| item.to_be_bytes()));
            prop_assert_eq!(InfoRequest::read(&info), Ok(InfoRequest { export: &export, items }));
            let mut meta = string(&export);
            meta.extend((queries.len() as u32).to_be_bytes());
            meta.extend(queries.iter().flat_map(|query| string(query)));
            let expected = MetaRequest { export: &export, queries: queries.iter().map(String::as_str).collect() };
            prop_assert_eq!(MetaRequest::read(&meta), Ok(expected));
            // Cut short or with something behind it, neither makes sense.
            prop_assert_eq!(InfoRequest::read(&info[..info.len() - 1]), Err(Malformed));
            info.push(0);
            prop_assert_eq!(InfoRequest::read(&info), Err(Malformed));
            meta.push(0);
            prop_assert_eq!(MetaRequest::read(&meta), Err(Malformed));
        }

        #[test]
        fn nothing_panics(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (InfoRequest::read(&data), MetaRequest::read(&data), name(&data));
        }
    }

    #[test]
    fn a_number_of_queries_without_queries_is_refused_at_once() {
        let data = [string("a"), u32::MAX.to_be_bytes().to_vec()].concat();
        assert_eq!(MetaRequest::read(&data), Err(Malformed));
    }

    #[test]
    fn long_names_are_refused() {
        assert!(name(&[b'a'; MAX_STRING_BYTES]).is_ok());
        assert_eq!(name(&[b'a'; MAX_STRING_BYTES + 1]), Err(Malformed));
        assert_eq!(name(&[0xff]), Err(Malformed));
    }
}
