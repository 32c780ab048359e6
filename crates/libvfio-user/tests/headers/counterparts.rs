//! That the Rust side has the same numbers as the tables, which the headers were checked against.

use std::mem::{align_of, offset_of, size_of};

use vfu::dma::{DmaInfo, Segment};
use vfu::pci::{PciType, region, regs};
use vfu::wire;

use crate::constants::constants;
use crate::layouts::{Layout, Place, layouts};

fn layout(name: &str) -> Layout {
    let found = layouts().into_iter().find(|layout| layout.name == name);
    found.unwrap_or_else(|| panic!("no {name} in layouts.txt"))
}

fn constant(name: &str) -> usize {
    let found = constants().into_iter().find(|constant| constant.0 == name);
    found
        .unwrap_or_else(|| panic!("no {name} in constants.txt"))
        .1
}

#[test]
fn vfu_dma_info_t() {
    let info = layout("struct vfu_dma_info");
    assert_eq!(
        (info.size, info.align),
        (size_of::<DmaInfo>(), align_of::<DmaInfo>())
    );
    assert_eq!(info.offset("iova"), offset_of!(DmaInfo, iova_base));
    assert_eq!(info.offset("iova") + 8, offset_of!(DmaInfo, iova_len));
    assert_eq!(info.offset("vaddr"), offset_of!(DmaInfo, vaddr));
    assert_eq!(info.offset("mapping"), offset_of!(DmaInfo, mapping_base));
    assert_eq!(info.offset("mapping") + 8, offset_of!(DmaInfo, mapping_len));
    assert_eq!(info.offset("page_size"), offset_of!(DmaInfo, page_size));
    assert_eq!(info.offset("prot"), offset_of!(DmaInfo, prot));
}

/// Opaque in C, but programs mirror it: the 40 bytes of the specification.
#[test]
fn dma_sg_t() {
    assert_eq!((size_of::<Segment>(), align_of::<Segment>()), (40, 8));
    assert_eq!(offset_of!(Segment, dma_addr), 0);
    assert_eq!(offset_of!(Segment, handle), 8);
    assert_eq!(offset_of!(Segment, length), 16);
    assert_eq!(offset_of!(Segment, offset), 24);
    assert_eq!(offset_of!(Segment, writeable), 32);
}

/// What C puts into a header is what Rust reads, and back.
#[test]
fn headers_on_the_wire() {
    let c = layout("struct vfio_user_header");
    assert_eq!(c.size, wire::HEADER);
    let mut bytes = [0; wire::HEADER];
    let mut put = |member: &str, value: u32| {
        let Place::Bytes { offset, size } = c.member(member) else {
            panic!("{member}")
        };
        bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    put("msg_id", 0x1234);
    put("cmd", 9);
    put("msg_size", 0x0012_0020);
    put("flags", 0x31);
    put("error_no", 0xbeef);
    let header = wire::Header::decode(&bytes).unwrap();
    assert_eq!((header.id, header.command, header.flags), (0x1234, 9, 0x31));
    assert_eq!((header.size, header.error), (0x0012_0020, 0xbeef));
    assert_eq!(header.encode(), bytes);
}

#[test]
fn numbers_on_the_wire() {
    for (name, value) in [
        ("VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE", wire::MAX_DATA),
        ("VFIO_USER_F_TYPE_MASK", wire::TYPE_MASK as usize),
        ("VFIO_USER_F_TYPE_COMMAND", wire::TYPE_COMMAND as usize),
        ("VFIO_USER_F_TYPE_REPLY", wire::TYPE_REPLY as usize),
        ("VFIO_USER_F_NO_REPLY", wire::NO_REPLY as usize),
        ("VFIO_USER_F_ERROR", wire::ERROR as usize),
    ] {
        assert_eq!(constant(name), value, "{name}");
    }
    assert_eq!(
        layout("struct vfio_user_region_access").size,
        wire::REGION_ACCESS
    );
    assert_eq!(
        layout("struct vfio_user_dma_region_access").size,
        wire::REGION_ACCESS
    );
    let mut commands = 0;
    for number in 0..=u16::MAX {
        if let Some(command) = wire::Command::new(number) {
            assert_eq!(
                constant(&format!("VFIO_USER_{}", command.name())),
                usize::from(number)
            );
            commands += 1;
        }
    }
    assert_eq!(commands, 17);
}

#[test]
fn registers_of_the_pci_header() {
    let header = layout("vfu_pci_hdr_t");
    assert_eq!(header.size, regs::STD_HEADER_SIZEOF);
    assert_eq!(layout("vfu_pci_config_space_t").size, regs::CFG_SPACE_SIZE);
    for (member, offset) in [
        ("id", regs::VENDOR_ID),
        ("cmd", regs::COMMAND),
        ("sts", regs::STATUS),
        ("rid", regs::REVISION_ID),
        ("cc", regs::CLASS_PROG),
        ("cls", regs::CACHE_LINE_SIZE),
        ("mlt", regs::LATENCY_TIMER),
        ("htype", regs::HEADER_TYPE),
        ("bist", regs::BIST),
        ("bars", regs::BASE_ADDRESS_0),
        ("ccptr", regs::CARDBUS_CIS),
        ("ss", regs::SUBSYSTEM_VENDOR_ID),
        ("erom", regs::ROM_ADDRESS),
        ("cap", regs::CAPABILITY_LIST),
        ("intr", regs::INTERRUPT_LINE),
        ("mgnt", regs::MIN_GNT),
        ("mlat", regs::MAX_LAT),
    ] {
        assert_eq!(header.offset(member), offset, "{member}");
    }
    assert_eq!(
        header.offset("id") + layout("vfu_pci_hdr_id_t").offset("did"),
        regs::DEVICE_ID
    );
    assert_eq!(
        header.offset("ss") + layout("vfu_pci_hdr_ss_t").offset("sid"),
        regs::SUBSYSTEM_ID
    );
    assert_eq!(
        header.offset("intr") + layout("vfu_pci_hdr_intr_t").offset("ipin"),
        regs::INTERRUPT_PIN
    );
    assert_eq!(constant("PCI_BARS_NR"), region::BARS);
}

#[test]
fn bits_of_pci_registers() {
    for (name, member, bits) in [
        ("vfu_pci_hdr_cmd_t", "iose", u32::from(regs::COMMAND_IO)),
        ("vfu_pci_hdr_cmd_t", "mse", u32::from(regs::COMMAND_MEMORY)),
        ("vfu_pci_hdr_cmd_t", "bme", u32::from(regs::COMMAND_MASTER)),
        (
            "vfu_pci_hdr_cmd_t",
            "mwie",
            u32::from(regs::COMMAND_INVALIDATE),
        ),
        ("vfu_pci_hdr_cmd_t", "see", u32::from(regs::COMMAND_SERR)),
        (
            "vfu_pci_hdr_cmd_t",
            "id",
            u32::from(regs::COMMAND_INTX_DISABLE),
        ),
        ("vfu_pci_hdr_sts_t", "cl", u32::from(regs::STATUS_CAP_LIST)),
        ("vfu_bar_t", "mem.region_type", regs::BASE_ADDRESS_SPACE_IO),
        (
            "vfu_bar_t",
            "mem.prefetchable",
            regs::BASE_ADDRESS_MEM_PREFETCH,
        ),
        (
            "vfu_bar_t",
            "mem.base_address",
            !regs::BASE_ADDRESS_MEM_FLAGS,
        ),
        ("vfu_bar_t", "io.base_address", !regs::BASE_ADDRESS_IO_FLAGS),
        ("struct pxdcap", "flrc", regs::EXP_DEVCAP_FLR),
        ("union pxdc", "iflr", u32::from(regs::EXP_DEVCTL_BCR_FLR)),
    ] {
        let Place::Bits { first, width } = layout(name).member(member) else {
            panic!("{member}")
        };
        let expected = (u32::MAX >> (32 - width)) << first;
        assert_eq!(expected, bits, "{name}.{member}");
    }
}

#[test]
fn capabilities() {
    for (name, size) in [
        ("struct pmcap", regs::CAP_PM_SIZEOF),
        ("struct msicap", regs::CAP_MSI_SIZEOF),
        ("struct msixcap", regs::CAP_MSIX_SIZEOF),
        ("struct pxcap", regs::CAP_EXP_SIZEOF),
        ("struct dsncap", regs::EXT_CAP_DSN_SIZEOF),
    ] {
        assert_eq!(layout(name).size, size, "{name}");
    }
    let express = layout("struct pxcap");
    assert_eq!(express.offset("pxdcap"), regs::EXP_DEVCAP);
    assert_eq!(express.offset("pxdc"), regs::EXP_DEVCTL);
    for (name, value) in [
        ("VFIO_USER_PCI_CAP_MSI_SIZEOF", regs::CAP_MSI_SIZEOF),
        ("VFIO_USER_PCI_CAP_EXP_SIZEOF", regs::CAP_EXP_SIZEOF),
        (
            "VFU_CAP_FLAG_EXTENDED",
            vfu::pci::CAP_FLAG_EXTENDED as usize,
        ),
        (
            "VFU_CAP_FLAG_CALLBACK",
            vfu::pci::CAP_FLAG_CALLBACK as usize,
        ),
        (
            "VFU_CAP_FLAG_READONLY",
            vfu::pci::CAP_FLAG_READONLY as usize,
        ),
    ] {
        assert_eq!(constant(name), value, "{name}");
    }
}

#[test]
fn regions_and_types() {
    for (name, value) in [
        ("VFU_REGION_FLAG_READ", region::FLAG_READ),
        ("VFU_REGION_FLAG_WRITE", region::FLAG_WRITE),
        ("VFU_REGION_FLAG_RW", region::FLAG_RW),
        ("VFU_REGION_FLAG_MEM", region::FLAG_MEM),
        ("VFU_REGION_FLAG_ALWAYS_CB", region::FLAG_ALWAYS_CB),
        ("VFU_REGION_FLAG_64_BITS", region::FLAG_64_BITS),
        ("VFU_REGION_FLAG_PREFETCH", region::FLAG_PREFETCH),
        ("VFU_REGION_FLAG_MASK", region::FLAG_MASK),
    ] {
        assert_eq!(constant(name), value as usize, "{name}");
    }
    for (name, value) in [
        ("VFU_PCI_DEV_BAR0_REGION_IDX", region::BAR0),
        ("VFU_PCI_DEV_ROM_REGION_IDX", region::ROM),
        ("VFU_PCI_DEV_CFG_REGION_IDX", region::CONFIG),
        ("VFU_PCI_DEV_NUM_REGIONS", region::COUNT),
        ("VFU_PCI_TYPE_CONVENTIONAL", PciType::Conventional as usize),
        ("VFU_PCI_TYPE_PCI_X_1", PciType::PciX1 as usize),
        ("VFU_PCI_TYPE_PCI_X_2", PciType::PciX2 as usize),
        ("VFU_PCI_TYPE_EXPRESS", PciType::Express as usize),
    ] {
        assert_eq!(constant(name), value, "{name}");
    }
}
