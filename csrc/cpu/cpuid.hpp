// Which instruction sets this processor and operating system can run.
#pragma once

namespace gradkern::cpu {

bool has_avx2_fma();
bool has_avx512();  // F, VL, DQ and BW, with the operating system saving the wide registers
bool has_avx512fp16();
bool has_avx512_bf16();
bool has_avx512_vnni();
bool has_amx_bf16();  // and the system lets this process use its tiles

bool is_amd();
bool halves_avx512();  // computes on registers of 512 bits half by half, and has VNNI: Zen 4
long l2_bytes();       // of one core, or what is usual where nobody says

}  // namespace gradkern::cpu
