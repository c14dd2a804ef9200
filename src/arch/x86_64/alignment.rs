//! What an access must be aligned to.

use iced_x86::{EncodingKind, Mnemonic};

use super::Instruction;
use crate::arch::Touch;

impl Instruction<'_> {
    /// What the access must be aligned to, and whether the manual says so of this very instruction.
    pub(crate) fn alignment(&self, touch: &Touch) -> Option<(u64, bool)> {
        match self.decoded.mnemonic() {
            Mnemonic::Movaps
            | Mnemonic::Movapd
            | Mnemonic::Movdqa
            | Mnemonic::Movntps
            | Mnemonic::Movntpd
            | Mnemonic::Movntdq
            | Mnemonic::Movntdqa
            | Mnemonic::Vmovaps
            | Mnemonic::Vmovapd
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovdqa32
            | Mnemonic::Vmovdqa64
            | Mnemonic::Vmovntps
            | Mnemonic::Vmovntpd
            | Mnemonic::Vmovntdq
            | Mnemonic::Vmovntdqa => Some((touch.bytes, true)),
            Mnemonic::Cmpxchg16b | Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
                Some((16, true))
            }
            Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movdqu
            | Mnemonic::Lddqu
            | Mnemonic::Pcmpestri
            | Mnemonic::Pcmpestrm
            | Mnemonic::Pcmpistri
            | Mnemonic::Pcmpistrm
            | Mnemonic::Maskmovdqu => None,
            // The other SSE instructions of 16 bytes (SDM 1, 4.1.1); VEX-coded ones take any address.
            _ if self.decoded.encoding() == EncodingKind::Legacy && touch.bytes == 16 && has_xmm(&self.decoded) => {
                Some((16, false))
            }
            _ => None,
        }
    }
}

fn has_xmm(instruction: &iced_x86::Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| instruction.op_register(operand).is_xmm())
}
