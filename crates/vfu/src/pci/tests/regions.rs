//! The rules of region setup, in their order.

use super::region::*;
use super::*;

const OK: RegionRequest = RegionRequest {
    index: 0,
    size: 0x1000,
    has_callback: false,
    flags: FLAG_RW | FLAG_MEM,
    has_areas: false,
    area_count: 0,
    fd: -1,
};

fn check(request: RegionRequest) -> Result<u64, RegionError> {
    check_region(&request, &[Region::default(); COUNT], 0, [])
}

#[test]
fn rules_run_in_order() {
    let mut bad = RegionRequest {
        index: 9,
        size: 3,
        flags: 0x48,
        has_areas: true,
        ..OK
    };
    assert_eq!(check(bad), Err(RegionError::Flags(0x48)));
    bad.flags = FLAG_MEM;
    assert_eq!(check(bad), Err(RegionError::Flags(FLAG_MEM)));
    bad.flags = FLAG_RW | FLAG_ALWAYS_CB;
    assert_eq!(check(bad), Err(RegionError::NoCallback));
    bad.has_callback = true;
    assert_eq!(
        check(bad),
        Err(RegionError::Areas {
            given: true,
            count: 0,
            fd: -1
        })
    );
    bad.area_count = 1;
    assert_eq!(
        check(bad),
        Err(RegionError::Areas {
            given: true,
            count: 1,
            fd: -1
        })
    );
    bad.fd = 5;
    assert_eq!(check(bad), Err(RegionError::Index(9)));
    bad.index = -1;
    assert_eq!(check(bad), Err(RegionError::Index(-1)));
    bad.index = 0;
    assert_eq!(
        check(bad),
        Err(RegionError::BarSize {
            index: 0,
            size: 3,
            least: 4
        })
    );
    assert_eq!(
        check(RegionRequest {
            area_count: 1,
            ..OK
        }),
        Err(RegionError::Areas {
            given: false,
            count: 1,
            fd: -1
        })
    );
}

#[test]
fn bar_sizes() {
    for (size, flags, fits) in [
        (0, FLAG_RW, true),
        (2, FLAG_RW, false),
        (4, FLAG_RW, true),
        (8, FLAG_RW | FLAG_MEM, false),
        (16, FLAG_RW | FLAG_MEM, true),
        (0x3000, FLAG_RW | FLAG_MEM, false),
        (1 << 33, FLAG_RW | FLAG_MEM | FLAG_64_BITS, true),
    ] {
        assert_eq!(
            check(RegionRequest { size, flags, ..OK }).is_ok(),
            fits,
            "{size:#x}"
        );
    }
    assert_eq!(
        check(RegionRequest {
            index: 6,
            size: 0x3000,
            ..OK
        }),
        Ok(0x3000)
    );
    assert_eq!(
        check(RegionRequest {
            index: 8,
            size: 0x3001,
            ..OK
        }),
        Ok(0x3001)
    );
}

#[test]
fn sixty_four_bit_pairs() {
    let wide = FLAG_RW | FLAG_MEM | FLAG_64_BITS;
    assert_eq!(
        check(RegionRequest {
            index: 1,
            flags: wide,
            ..OK
        }),
        Err(RegionError::Odd64(1))
    );
    let mut regions = [Region::default(); COUNT];
    regions[2] = Region {
        size: 0x1000,
        flags: wide,
        has_callback: false,
    };
    let upper = RegionRequest {
        index: 3,
        size: 0,
        ..OK
    };
    assert_eq!(
        check_region(&upper, &regions, 0, []),
        Err(RegionError::UpperHalf(3))
    );
    regions[1].size = 16;
    let lower = RegionRequest {
        index: 0,
        flags: wide,
        ..OK
    };
    assert_eq!(
        check_region(&lower, &regions, 0, []),
        Err(RegionError::UpperInUse(0))
    );
}

/// D27: config space has at least a header, and never more than its buffer.
#[test]
fn d27_config_space_sizes() {
    let config = RegionRequest {
        index: 7,
        flags: FLAG_RW,
        ..OK
    };
    let regions = [Region::default(); COUNT];
    assert_eq!(check(config), Ok(4096));
    assert_eq!(
        check(RegionRequest {
            size: 1 << 20,
            ..config
        }),
        Ok(4096)
    );
    assert_eq!(check_region(&config, &regions, 256, []), Ok(256));
    assert_eq!(
        check_region(
            &RegionRequest {
                size: 128,
                ..config
            },
            &regions,
            256,
            []
        ),
        Ok(128)
    );
    assert_eq!(
        check(RegionRequest { size: 63, ..config }),
        Err(RegionError::ConfigSize(63))
    );
    assert_eq!(check(RegionRequest { size: 0, ..config }), Ok(0));
    for flags in [FLAG_READ, FLAG_WRITE, FLAG_RW | FLAG_MEM] {
        assert_eq!(
            check(RegionRequest { flags, ..config }),
            Err(RegionError::ConfigFlags(flags))
        );
    }
}

/// D30: the sum of base and length does not wrap.
#[test]
fn d30_areas_lie_inside() {
    let request = RegionRequest {
        has_areas: true,
        area_count: 2,
        fd: 3,
        ..OK
    };
    let regions = [Region::default(); COUNT];
    let run = |base, len| {
        let areas = [
            MmapArea {
                base: 0,
                len: 0x1000,
            },
            MmapArea { base, len },
        ];
        check_region(&request, &regions, 0, areas)
    };
    assert_eq!(run(0x800, 0x800), Ok(0x1000));
    assert!(matches!(
        run(0x800, 0x801),
        Err(RegionError::AreaOutside { .. })
    ));
    assert!(matches!(
        run(u64::MAX, 2),
        Err(RegionError::AreaOutside { .. })
    ));
    assert!(matches!(
        run(0x1001, 0),
        Err(RegionError::AreaOutside { .. })
    ));
}

#[test]
fn messages_have_values() {
    let area = MmapArea {
        base: 0x10,
        len: 0x20,
    };
    let text = RegionError::AreaOutside { area, size: 0x18 }.to_string();
    assert_eq!(
        text,
        "mappable area at 0x10 of 0x20 bytes is outside the region of 0x18 bytes"
    );
    let text = RegionError::Areas {
        given: false,
        count: 2,
        fd: -1,
    }
    .to_string();
    assert_eq!(
        text,
        "bad mappable areas: no array, 2 entries, descriptor -1"
    );
    assert_eq!(
        RegionError::Index(12).to_string(),
        "bad region index 12: 0 to 8 exist"
    );
    assert_eq!(RegionError::Index(12).errno(), libc::EINVAL);
}
