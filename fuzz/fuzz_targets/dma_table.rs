//! Operations of the DMA table itself, against a plain list of what must be in it.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vfu::dma::{Access, Dma, LogRange, NewRegion, RegionId, Segment};

#[derive(Debug, Arbitrary)]
enum Op {
    Add {
        iova: Place,
        size: Place,
        prot: u8,
    },
    Remove(u8),
    Translate {
        iova: Place,
        length: Place,
        prot: u8,
        room: u8,
    },
    Log {
        page_size: u32,
    },
    StopLogging,
    Report {
        iova: Place,
        length: Place,
        page_size: u32,
    },
}

/// A number: small, at the end of the address space, or any.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Place {
    Page(u8),
    Near(u8),
    FromEnd(u8),
    Any(u64),
}

impl Place {
    fn value(self) -> u64 {
        match self {
            Self::Page(page) => u64::from(page) << 12,
            Self::Near(offset) => offset.into(),
            Self::FromEnd(offset) => u64::MAX - u64::from(offset),
            Self::Any(value) => value,
        }
    }
}

struct Known {
    id: RegionId,
    iova: u64,
    size: u64,
    prot: u32,
    /// Entries that translations gave; stale once it is gone.
    segment: Option<Segment>,
}

fuzz_target!(|ops: Vec<Op>| {
    let dma = Dma::new(12).expect("memory is left");
    let mut known: Vec<Known> = Vec::new();
    let mut stale: Vec<Segment> = Vec::new();
    for op in ops.iter().take(200) {
        match *op {
            Op::Add { iova, size, prot } => {
                let (iova, size, prot) = (iova.value(), size.value(), u32::from(prot & 3));
                let added = dma.add(NewRegion {
                    iova,
                    size,
                    prot,
                    offset: 0,
                    access: Access::Message,
                    fd: None,
                });
                let overlaps = known.iter().any(|k| {
                    k.iova < iova.saturating_add(size) && iova < k.iova.saturating_add(k.size)
                });
                match added {
                    Ok(vfu::dma::Added::New(region)) => {
                        assert_eq!((region.iova, region.size), (iova, size));
                        assert!(
                            !overlaps && size > 0 && known.len() < 12,
                            "{iova:#x} {size:#x}"
                        );
                        known.push(Known {
                            id: dma.find_exact(iova, size).expect("it was just added"),
                            iova,
                            size,
                            prot,
                            segment: None,
                        });
                    }
                    Ok(_) => assert!(
                        known
                            .iter()
                            .any(|k| (k.iova, k.size, k.prot) == (iova, size, prot))
                    ),
                    Err(_) => {}
                }
            }
            Op::Remove(index) => {
                if !known.is_empty() {
                    let gone = known.swap_remove(usize::from(index) % known.len());
                    assert!(dma.remove(gone.id).is_ok());
                    assert!(dma.remove(gone.id).is_err());
                    stale.extend(gone.segment);
                }
            }
            Op::Translate {
                iova,
                length,
                prot,
                room,
            } => {
                let (iova, length, prot) = (iova.value(), length.value(), u32::from(prot & 3));
                let mut segments = vec![Segment::default(); usize::from(room % 16)];
                let Ok(count) = dma.translate_into(iova, length, prot, &mut segments) else {
                    continue;
                };
                let mut at = iova;
                for segment in segments.iter().take(count) {
                    let located = dma.locate(segment).expect("it was just given");
                    assert_eq!(located.iova, at);
                    let home = known
                        .iter_mut()
                        .find(|k| k.iova <= at && at - k.iova < k.size)
                        .expect("only what is known is found");
                    assert!(located.length <= home.size - (at - home.iova));
                    assert!(
                        prot & 2 == 0 || home.prot & 2 != 0,
                        "no writing where it is forbidden"
                    );
                    home.segment = Some(*segment);
                    at = at.wrapping_add(located.length);
                }
                if count <= segments.len() {
                    assert_eq!(at, iova.wrapping_add(length));
                }
            }
            Op::Log { page_size } => {
                let _ = dma.start_logging(page_size.into(), &[] as &[LogRange]);
            }
            Op::StopLogging => drop(dma.stop_logging()),
            Op::Report {
                iova,
                length,
                page_size,
            } => {
                let (iova, length, page_size) = (iova.value(), length.value(), page_size.into());
                if let Ok(bytes) = dma.check_report(iova, length, page_size) {
                    let mut bitmap = vec![0; bytes];
                    assert!(dma.report(iova, length, page_size, &mut bitmap).is_ok());
                }
            }
        }
        for segment in &stale {
            assert!(dma.locate(segment).is_err(), "an entry outlived its region");
        }
        assert_eq!(dma.len(), known.len());
    }
});
