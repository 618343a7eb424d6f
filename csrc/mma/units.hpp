// The matrix units, as data: which instruction of which GPU multiplies what, and the parameters of its fused steps.
//
// One algorithm (model.hpp) with four parameters describes every mixed-precision MMA of NVIDIA's from Volta to Blackwell
// that has no block scales: L products a step, F fraction bits kept at the common exponent, a floor under that
// exponent, and how the sum is rounded. How well a row is known is its evidence, one letter a source:
//   S  recorded outputs of that GPU are reproduced, bit for bit
//   K  the constants of Khattak and Mikaitis (2025), found by experiment on the GPUs
//   H  Hawkeye's probes of the GPUs
//   M  the reference model MMA-Sim (arXiv 2511.10909), validated by its authors on the GPUs
//   E  mmaemu, an emulator validated on an RTX 4060 and an H100
//   U  sources disagree, or there is no recording
//   X  compared, bit for bit, with the instruction or the library itself: of CPUs by the tests, of GPUs by
//      benchmarks/gpu_check.py, whose report is in benchmarks/gpu_<name>
//   D  the vendor's documents
// Units that round after every addition, those of CPUs, of CUDA cores and of libraries, are rows too: a form says which
// rule of cpu_units.hpp is theirs, and the four parameters say nothing.
#pragma once

#include <string_view>

#include "formats/format.hpp"

namespace gradkern::mma {

using formats::FormatId;

enum class Unit : int {
  none,
  volta,
  turing,
  ampere,
  ada,
  hopper,
  hopper_wgmma,
  blackwell,
  blackwell_tcgen05,
  rtx_blackwell,
  x86_amx,
  x86_avx512_bf16,
  x86_avx512_fp16,
  cuda_hfma,
  cuda_hmul_hadd,
  numpy,
  torch_cpu
};

inline constexpr const char* unit_names[] = {"none",
                                             "volta",
                                             "turing",
                                             "ampere",
                                             "ada",
                                             "hopper",
                                             "hopper.wgmma",
                                             "blackwell",
                                             "blackwell.tcgen05",
                                             "rtx_blackwell",
                                             "x86.amx",
                                             "x86.avx512_bf16",
                                             "x86.avx512_fp16",
                                             "cuda.hfma",
                                             "cuda.hmul_hadd",
                                             "numpy",
                                             "torch_cpu"};
inline constexpr int unit_count = 17;

// How a step's sum becomes the accumulator: truncated to 23 fraction bits of float32, to 13 of them, or rounded to
// float16, ties to even.
enum class Output : int { truncated, truncated13, half };

// One fused multiply-add of `products` products and the accumulator.
struct Step {
  int products;        // L
  int fraction_bits;   // F
  int exponent_floor;  // EZ
  Output output;
};

// chain: k / L steps, k ascending, each taking the accumulator of the one before. halves: the operands become float16;
// the pairs 0 1, 4 5, 8 9, ... run from +0, then 2 3, 6 7, ... from their result, and C is added by one rounding.
// The others round each operation, products one by one: see cpu_units.hpp. torch is what torch_instruction makes of it.
enum class Form : int {
  chain,
  halves,
  amx,
  pairs,
  fused_half,
  separate_half,
  rounded_float,
  fused_float,
  interleaved,
  registers,
  torch
};
inline constexpr const char* form_names[] = {"chain",       "halves",        "amx",           "pairs",
                                             "fused_half",  "separate_half", "rounded_float", "fused_float",
                                             "interleaved", "registers",     "torch"};

// Where the k-th operand of an instruction in halves goes, of 32: pairs 0 1, 4 5, ... first.
GRADKERN_HD constexpr int place_in_halves(int k) { return ((k >> 1) & 1) * 16 + (k >> 2) * 2 + (k & 1); }

// What the steps of an instruction multiply: its operands, or what they become.
constexpr FormatId multiplied(Form form, FormatId operand) {
  return form == Form::halves ? FormatId::float16 : operand;
}

GRADKERN_HD constexpr bool rounds_each(Form form) { return form > Form::halves; }

// Whether float16 is the accumulator, and the only one.
GRADKERN_HD constexpr bool half_only(Form form) {
  return form == Form::fused_half || form == Form::separate_half || form == Form::rounded_float;
}

// What an instruction multiplies. float8: e4m3fn or e5m2, each operand its own.
enum class Operands : int { float16, bfloat16, tfloat32, float8 };

struct Row {
  Unit unit;
  Operands operands;
  int k;  // products of one output in one instruction; a unit's first row of an operand is its default
  Form form;
  int products, fraction_bits, floor_float32, floor_float16;  // floor_float16: 0 where float16 is no accumulator
  Output float32_output;
  const char* evidence;
  const char* instruction;
};

inline constexpr int no_half = 0;

// clang-format off
inline constexpr Row rows[] = {
  {Unit::volta, Operands::float16, 4, Form::chain, 4, 23, -131, -19, Output::truncated, "SKM", "mma.m8n8k4"},

  {Unit::turing, Operands::float16, 8, Form::chain, 8, 24, -132, -20, Output::truncated, "MU", "mma.m16n8k8"},
  {Unit::turing, Operands::float16, 4, Form::chain, 4, 23, -131, -19, Output::truncated, "MU", "mma.m8n8k4"},

  {Unit::ampere, Operands::float16, 16, Form::chain, 8, 24, -132, -20, Output::truncated, "SKHM", "mma.m16n8k16"},
  {Unit::ampere, Operands::float16, 8, Form::chain, 8, 24, -132, -20, Output::truncated, "SKHM", "mma.m16n8k8"},
  {Unit::ampere, Operands::bfloat16, 16, Form::chain, 8, 24, -132, no_half, Output::truncated, "SKHM", "mma.m16n8k16"},
  {Unit::ampere, Operands::bfloat16, 8, Form::chain, 8, 24, -132, no_half, Output::truncated, "SKHM", "mma.m16n8k8"},
  {Unit::ampere, Operands::tfloat32, 8, Form::chain, 4, 24, -132, no_half, Output::truncated, "SKHM", "mma.m16n8k8"},
  {Unit::ampere, Operands::tfloat32, 4, Form::chain, 4, 24, -132, no_half, Output::truncated, "SKHM", "mma.m16n8k4"},

  {Unit::ada, Operands::float16, 16, Form::chain, 8, 24, -132, -20, Output::truncated, "SKM", "mma.m16n8k16"},
  {Unit::ada, Operands::float16, 8, Form::chain, 8, 24, -132, -20, Output::truncated, "SKM", "mma.m16n8k8"},
  {Unit::ada, Operands::bfloat16, 16, Form::chain, 8, 24, -132, no_half, Output::truncated, "SKM", "mma.m16n8k16"},
  {Unit::ada, Operands::bfloat16, 8, Form::chain, 8, 24, -132, no_half, Output::truncated, "SKM", "mma.m16n8k8"},
  {Unit::ada, Operands::tfloat32, 8, Form::chain, 4, 24, -132, no_half, Output::truncated, "SKM", "mma.m16n8k8"},
  {Unit::ada, Operands::tfloat32, 4, Form::chain, 4, 24, -132, no_half, Output::truncated, "SKM", "mma.m16n8k4"},
  {Unit::ada, Operands::float8, 32, Form::chain, 16, 13, -132, -20, Output::truncated13, "SKME", "mma.m16n8k32"},

  {Unit::hopper, Operands::float16, 16, Form::chain, 16, 25, -133, -21, Output::truncated, "XSKHM", "mma.m16n8k16"},
  {Unit::hopper, Operands::float16, 8, Form::chain, 8, 25, -133, -21, Output::truncated, "XKM", "mma.m16n8k8"},
  {Unit::hopper, Operands::bfloat16, 16, Form::chain, 16, 25, -133, no_half, Output::truncated, "XSKHM", "mma.m16n8k16"},
  {Unit::hopper, Operands::bfloat16, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "XKM", "mma.m16n8k8"},
  {Unit::hopper, Operands::tfloat32, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "XKM", "mma.m16n8k8"},
  {Unit::hopper, Operands::tfloat32, 4, Form::chain, 4, 25, -133, no_half, Output::truncated, "XSKM", "mma.m16n8k4"},
  {Unit::hopper, Operands::float8, 32, Form::halves, 16, 25, -133, -21, Output::truncated, "XSK", "mma.m16n8k32"},

  {Unit::hopper_wgmma, Operands::float16, 16, Form::chain, 16, 25, -133, -21, Output::truncated, "KM", "wgmma.k16"},
  {Unit::hopper_wgmma, Operands::bfloat16, 16, Form::chain, 16, 25, -133, no_half, Output::truncated, "KM", "wgmma.k16"},
  {Unit::hopper_wgmma, Operands::tfloat32, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "KM", "wgmma.k8"},
  {Unit::hopper_wgmma, Operands::float8, 32, Form::chain, 32, 13, -133, -21, Output::truncated13, "SKME", "wgmma.k32"},

  {Unit::blackwell, Operands::float16, 16, Form::chain, 16, 25, -133, -21, Output::truncated, "SKM", "mma.m16n8k16"},
  {Unit::blackwell, Operands::float16, 8, Form::chain, 8, 25, -133, -21, Output::truncated, "KM", "mma.m16n8k8"},
  {Unit::blackwell, Operands::bfloat16, 16, Form::chain, 16, 25, -133, no_half, Output::truncated, "SKM", "mma.m16n8k16"},
  {Unit::blackwell, Operands::bfloat16, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "KM", "mma.m16n8k8"},
  {Unit::blackwell, Operands::tfloat32, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "KM", "mma.m16n8k8"},
  {Unit::blackwell, Operands::tfloat32, 4, Form::chain, 4, 25, -133, no_half, Output::truncated, "SKM", "mma.m16n8k4"},
  {Unit::blackwell, Operands::float8, 32, Form::halves, 16, 25, -133, -21, Output::truncated, "SK", "mma.m16n8k32"},

  {Unit::blackwell_tcgen05, Operands::float16, 16, Form::chain, 16, 25, -133, -21, Output::truncated, "M", "tcgen05.kind::f16"},
  {Unit::blackwell_tcgen05, Operands::bfloat16, 16, Form::chain, 16, 25, -133, no_half, Output::truncated, "M", "tcgen05.kind::f16"},
  {Unit::blackwell_tcgen05, Operands::tfloat32, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "M", "tcgen05.kind::tf32"},
  {Unit::blackwell_tcgen05, Operands::float8, 32, Form::chain, 32, 25, -133, -21, Output::truncated, "M", "tcgen05.kind::f8f6f4"},

  {Unit::rtx_blackwell, Operands::float16, 16, Form::chain, 16, 25, -133, -21, Output::truncated, "M", "mma.m16n8k16"},
  {Unit::rtx_blackwell, Operands::float16, 8, Form::chain, 8, 25, -133, -21, Output::truncated, "M", "mma.m16n8k8"},
  {Unit::rtx_blackwell, Operands::bfloat16, 16, Form::chain, 16, 25, -133, no_half, Output::truncated, "M", "mma.m16n8k16"},
  {Unit::rtx_blackwell, Operands::bfloat16, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "M", "mma.m16n8k8"},
  {Unit::rtx_blackwell, Operands::tfloat32, 8, Form::chain, 8, 25, -133, no_half, Output::truncated, "M", "mma.m16n8k8"},
  {Unit::rtx_blackwell, Operands::tfloat32, 4, Form::chain, 4, 25, -133, no_half, Output::truncated, "M", "mma.m16n8k4"},
  {Unit::rtx_blackwell, Operands::float8, 32, Form::chain, 32, 25, -133, -21, Output::truncated, "M", "mma.m16n8k32"},

  {Unit::x86_amx, Operands::bfloat16, 32, Form::amx, 0, 0, 0, no_half, Output::truncated, "X", "TDPBF16PS"},
  {Unit::x86_avx512_bf16, Operands::bfloat16, 2, Form::pairs, 0, 0, 0, no_half, Output::truncated, "X", "VDPBF16PS"},
  {Unit::x86_avx512_fp16, Operands::float16, 1, Form::fused_half, 0, 0, 0, no_half, Output::half, "X", "VFMADDPH"},
  {Unit::cuda_hfma, Operands::float16, 1, Form::fused_half, 0, 0, 0, no_half, Output::half, "D", "__hfma"},
  {Unit::cuda_hmul_hadd, Operands::float16, 1, Form::separate_half, 0, 0, 0, no_half, Output::half, "D", "__hmul_rn, __hadd_rn"},
  {Unit::numpy, Operands::float16, 1, Form::rounded_float, 0, 0, 0, no_half, Output::half, "X", "numpy.matmul"},
  {Unit::torch_cpu, Operands::float16, 1, Form::torch, 0, 0, 0, no_half, Output::truncated, "X", "torch.matmul"},
  {Unit::torch_cpu, Operands::bfloat16, 1, Form::torch, 0, 0, 0, no_half, Output::truncated, "X", "torch.matmul"},
};
// clang-format on

// Whether one row gives the bits of another, by the same instruction.
constexpr bool is_same(const Row& x, const Row& y) {
  return std::string_view(x.instruction) == y.instruction && x.operands == y.operands && x.k == y.k &&
         x.form == y.form && x.products == y.products && x.fraction_bits == y.fraction_bits &&
         x.floor_float32 == y.floor_float32 && x.floor_float16 == y.floor_float16 &&
         x.float32_output == y.float32_output;
}

// The unit behind mma.sync on GPUs of a compute capability; none where it is not known.
constexpr Unit unit_of_capability(int major, int minor) {
  switch (major) {
    case 8:
      return minor == 9 ? Unit::ada : Unit::ampere;
    case 9:
      return Unit::hopper;
    case 10:
      return Unit::blackwell;
    case 12:
      return Unit::rtx_blackwell;
    default:
      return Unit::none;
  }
}

// One instruction with its operands and accumulator chosen: all that the model needs. k = 0: there is none.
struct Instruction {
  FormatId a, b, accumulate;
  int k;
  Form form;
  Step step;
};

GRADKERN_HD constexpr bool takes(Operands operands, FormatId a, FormatId b) {
  switch (operands) {
    case Operands::float16:
      return a == FormatId::float16 && b == a;
    case Operands::bfloat16:
      return a == FormatId::bfloat16 && b == a;
    case Operands::tfloat32:
      return a == FormatId::tfloat32 && b == a;
    default:
      return (a == FormatId::float8_e4m3fn || a == FormatId::float8_e5m2) &&
             (b == FormatId::float8_e4m3fn || b == FormatId::float8_e5m2);
  }
}

GRADKERN_HD constexpr bool accumulates_half(const Row& row) {
  return half_only(row.form) || row.floor_float16 != no_half;
}

// A row with these formats, which it takes; k = 0 where this is no accumulator of it.
GRADKERN_HD constexpr Instruction instruction_of(const Row& row, FormatId a, FormatId b, FormatId accumulate) {
  const bool half = accumulate == FormatId::float16;
  if (half ? !accumulates_half(row) : accumulate != FormatId::float32 || half_only(row.form)) return {};
  return {a,
          b,
          accumulate,
          row.k,
          row.form,
          {row.products, row.fraction_bits, half ? row.floor_float16 : row.floor_float32,
           half ? Output::half : row.float32_output}};
}

// A float8 operand keeps its own format; the others are what the product rounds them to.
constexpr FormatId operand_format(FormatId given, FormatId operands) {
  const bool is_float8 = given == FormatId::float8_e4m3fn || given == FormatId::float8_e5m2;
  return is_float8 ? given : operands;
}

// The row of a unit for these operands, or null; k = 0: its default instruction.
constexpr const Row* find_row(Unit unit, FormatId a, FormatId b, int k) {
  for (const Row& row : rows)
    if (row.unit == unit && takes(row.operands, a, b) && (k == 0 || row.k == k)) return &row;
  return nullptr;
}

// The instruction of a unit; its k is 0 where there is none.
constexpr Instruction find(Unit unit, FormatId a, FormatId b, FormatId accumulate, int k = 0) {
  const Row* row = find_row(unit, a, b, k);
  return row ? instruction_of(*row, a, b, accumulate) : Instruction{};
}

}  // namespace gradkern::mma
