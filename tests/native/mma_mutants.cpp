// The scalar model with one rule broken at a time, for tests/test_mma_mutants.py: each must fail against golden outputs.
#include "mma/model.hpp"

namespace {

using namespace gradkern;
using namespace gradkern::mma;
using formats::Rounding;

// A rule is broken by hiding it; a parameter by `instruction`; what a step does by `step`.
struct Exact : Hardware {
  static void instruction(Instruction&) {}
  template <class Rules>
  static std::uint32_t step(const Instruction& i, const std::uint32_t* a, const std::uint32_t* b, int count,
                            std::uint32_t c) {
    return fused_step<Rules>(i.step, i.a, a, i.b, b, count, c);
  }
  static constexpr bool descending = false;
};

Number normalised(Number x) {
  while (x.significand && !(x.significand >> x.fraction_bits)) x.significand <<= 1, --x.exponent;
  return x;
}

struct AlignByFloor : Exact {
  static std::int64_t align(const Number& x, int quantum) {
    const int shift = x.exponent - x.fraction_bits - quantum;
    const std::int64_t value = x.negative ? -std::int64_t(x.significand) : std::int64_t(x.significand);
    return shift >= 0 ? value * (std::int64_t(1) << shift) : value >> (shift > -63 ? -shift : 63);
  }
};
struct AlignToNearest : Exact {
  static std::int64_t align(const Number& x, int quantum) {
    const int shift = x.exponent - x.fraction_bits - quantum;
    const std::uint64_t m = x.significand;
    const auto kept = static_cast<std::int64_t>(
        shift >= 0 ? m << shift : formats::shift_right_rounded(m, -shift, Rounding::nearest_even, 0));
    return x.negative ? -kept : kept;
  }
};
struct NormalisedProducts : Exact {
  static Number multiply(const Number& a, const Number& b) {
    Number p = Hardware::multiply(a, b);
    if (p.significand >> (p.fraction_bits + 1)) ++p.exponent, ++p.fraction_bits;
    return p;
  }
};
struct NormalisedSubnormals : Exact {
  static Number decode(FormatId f, std::uint32_t bits) { return normalised(Hardware::decode(f, bits)); }
};
struct FlushedOperands : Exact {
  static Number decode(FormatId f, std::uint32_t bits) {
    Number x = Hardware::decode(f, bits);
    if (!(x.significand >> x.fraction_bits)) x.significand = 0;
    return x;
  }
};
struct RoundedTfloat32 : Exact {
  static Number decode(FormatId f, std::uint32_t bits) {
    if (f == FormatId::tfloat32) bits += 0x0FFF + ((bits >> 13) & 1);
    return Hardware::decode(f, bits);
  }
};
struct NoNanInE4m3 : Exact {
  static Number decode(FormatId f, std::uint32_t bits) {
    Number x = Hardware::decode(f, bits);
    if (f == FormatId::float8_e4m3fn) x.nan = false;
    return x;
  }
};
struct NarrowAccumulator : Exact {  // c read as the operands of tf32 are
  static Number decode(FormatId f, std::uint32_t bits) {
    return Hardware::decode(f == FormatId::float32 ? FormatId::tfloat32 : f, bits);
  }
};
struct LateAccumulator : Exact {
  template <class Rules>
  static std::uint32_t step(const Instruction& i, const std::uint32_t* a, const std::uint32_t* b, int count,
                            std::uint32_t c) {
    return add(i.accumulate, fused_step<Rules>(i.step, i.a, a, i.b, b, count, 0), c);
  }
};
struct FlushedResults : Exact {
  template <class Rules>
  static std::uint32_t step(const Instruction& i, const std::uint32_t* a, const std::uint32_t* b, int count,
                            std::uint32_t c) {
    const std::uint32_t d = Exact::step<Rules>(i, a, b, count, c);
    const bool half = i.accumulate == FormatId::float16;
    return d & (half ? 0x7C00u : 0x7F800000u) ? d : 0;
  }
};
struct SingleProducts : Exact {  // an fma chain with the unit's rounding
  static void instruction(Instruction& i) { i.step.products = 1; }
};
struct HalfStep : Exact {
  static void instruction(Instruction& i) { i.step.products /= 2; }
};
struct DoubleStep : Exact {
  static void instruction(Instruction& i) { i.step.products = i.step.products < 32 ? i.step.products * 2 : 32; }
};
struct OneBitMore : Exact {
  static void instruction(Instruction& i) { ++i.step.fraction_bits; }
};
struct OneBitLess : Exact {
  static void instruction(Instruction& i) { --i.step.fraction_bits; }
};
struct NoFloor : Exact {
  static void instruction(Instruction& i) { i.step.exponent_floor = -1000; }
};
struct HigherFloor : Exact {
  static void instruction(Instruction& i) { ++i.step.exponent_floor; }
};
struct LowerFloor : Exact {
  static void instruction(Instruction& i) { --i.step.exponent_floor; }
};
struct ZerosCount : Exact {
  static int common_exponent(const Step& step, const Number* terms, int count) {
    int largest = step.exponent_floor;
    for (int i = 0; i < count; ++i) largest = terms[i].exponent > largest ? terms[i].exponent : largest;
    return largest;
  }
};
struct AccumulatorDoesNotCount : Exact {
  static int common_exponent(const Step& step, const Number* terms, int count) {
    return Hardware::common_exponent(step, terms, count - 1);
  }
};
struct NearestFloat32 : Exact {
  static constexpr Rounding float32_rounding = Rounding::nearest_even;
};
struct TruncatedFloat16 : Exact {
  static constexpr Rounding float16_rounding = Rounding::toward_zero;
};
struct WideFloat8 : Exact {
  static constexpr int truncated13_bits = 23;
};
struct OneBitMoreOfFloat8 : Exact {
  static constexpr int truncated13_bits = 14;
};
struct OppositeInfinities : Exact {
  static bool invalid(bool, bool) { return false; }
};
struct InfinityTimesZero : Exact {
  static Number multiply(const Number& a, const Number& b) {
    Number p = Hardware::multiply(a, b);
    p.nan = a.nan || b.nan;
    return p;
  }
};
struct NegativeZero : Exact {
  static std::uint32_t zero(bool negative) { return negative ? 0x80000000u : 0; }
};
struct Saturating : Exact {
  static std::uint32_t overflow(Output output, bool negative) { return infinity(output, negative) - 1; }
};
struct QuietNan : Exact {
  static std::uint32_t nan(Output output) { return output == Output::half ? 0x7E00u : 0x7FC00000u; }
};
struct Descending : Exact {
  static constexpr bool descending = true;
};

template <class Rules>
std::uint32_t replay(Instruction i, const std::uint32_t* a, const std::uint32_t* b, std::int64_t size,
                     std::uint32_t c) {
  const int unit_products = i.step.products;
  Rules::instruction(i);
  const std::int64_t step = i.step.products < 1 ? unit_products : i.step.products, last = (size - 1) / step * step;
  for (std::int64_t at = 0; at < size; at += step) {
    const std::int64_t k = Rules::descending ? last - at : at;
    const int count = static_cast<int>(size - k < step ? size - k : step);
    c = Rules::template step<Rules>(i, a + k, b + k, count, c);
  }
  return c;
}

struct Mutant {
  const char* name;
  std::uint32_t (*replay)(Instruction, const std::uint32_t*, const std::uint32_t*, std::int64_t, std::uint32_t);
};

#define MUTANT(rule) {#rule, replay<rule>}
constexpr Mutant mutants[] = {MUTANT(Exact),
                              MUTANT(AlignByFloor),
                              MUTANT(AlignToNearest),
                              MUTANT(NormalisedProducts),
                              MUTANT(NormalisedSubnormals),
                              MUTANT(FlushedOperands),
                              MUTANT(RoundedTfloat32),
                              MUTANT(NoNanInE4m3),
                              MUTANT(NarrowAccumulator),
                              MUTANT(LateAccumulator),
                              MUTANT(FlushedResults),
                              MUTANT(SingleProducts),
                              MUTANT(HalfStep),
                              MUTANT(DoubleStep),
                              MUTANT(OneBitMore),
                              MUTANT(OneBitLess),
                              MUTANT(NoFloor),
                              MUTANT(HigherFloor),
                              MUTANT(LowerFloor),
                              MUTANT(ZerosCount),
                              MUTANT(AccumulatorDoesNotCount),
                              MUTANT(NearestFloat32),
                              MUTANT(TruncatedFloat16),
                              MUTANT(WideFloat8),
                              MUTANT(OneBitMoreOfFloat8),
                              MUTANT(OppositeInfinities),
                              MUTANT(InfinityTimesZero),
                              MUTANT(NegativeZero),
                              MUTANT(Saturating),
                              MUTANT(QuietNan),
                              MUTANT(Descending)};
constexpr int mutant_count = sizeof mutants / sizeof *mutants;

}  // namespace

extern "C" {

const char* mutant_name(int index) { return index < mutant_count ? mutants[index].name : nullptr; }

// How many of m * n outputs the mutant gets wrong: a (m, k), b (n, k), c and d (m, n), raw patterns.
std::int64_t mutant_failures(int index, int unit, int a_format, int b_format, int accumulate, int instruction_k,
                             const std::uint32_t* a, const std::uint32_t* b, const std::uint32_t* c,
                             const std::uint32_t* d, std::int64_t m, std::int64_t n, std::int64_t k) {
  const Instruction i = find(static_cast<Unit>(unit), static_cast<FormatId>(a_format), static_cast<FormatId>(b_format),
                             static_cast<FormatId>(accumulate), instruction_k);
  std::int64_t failures = 0;
  for (std::int64_t row = 0; row < m; ++row)
    for (std::int64_t column = 0; column < n; ++column)
      failures += mutants[index].replay(i, a + row * k, b + column * k, k, c[row * n + column]) != d[row * n + column];
  return failures;
}
}
