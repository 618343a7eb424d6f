// Products on matrix units against the scalar model, bit for bit: every unit, instruction set and thread count, over
// inputs that reach each branch of the loops: exponents that spread, subnormals, ties, cancellation, overflow, sums that
// leave int32, zeros, and what is not finite.
#include <cmath>
#include <string>
#include <vector>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "mma/model.hpp"
#include "tensors.hpp"

namespace {

using namespace gradkern;
using formats::FormatId;
using test::Tensor;

constexpr const char* classes[] = {"normal", "wide",     "cancel",   "subnormal",   "specials",
                                   "powers", "largest",  "overflow", "mostly_zero", "bits",
                                   "tiny",   "positive", "moderate", "outliers"};

double random_normal(std::uint64_t seed, std::uint64_t i) {
  double sum = -6;
  for (std::uint64_t part = 0; part < 12; ++part) sum += test::uniform(seed, 12 * i + part);
  return sum;
}

// Values of a kind, of a format of so many exponents.
std::vector<double> draw(const std::string& kind, FormatId format, std::uint64_t seed, std::int64_t size) {
  const auto [low, high, largest] = formats::visit(format, [](auto f) {
    using F = decltype(f);
    using L = formats::Layout<F>;
    const auto top = static_cast<typename F::container>(L::max_finite << F::container_shift);
    return std::tuple(L::min_quantum, F::bias, formats::decode<F>(top));
  });
  std::vector<double> v(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < v.size(); ++i) {
    const std::uint64_t bits = formats::random_bits(seed ^ 77, i);
    const double normal = random_normal(seed, i);
    if (kind == "wide") {
      v[i] = test::random_double(seed, i, low, high);
    } else if (kind == "moderate") {
      v[i] = test::random_double(seed, i, std::max(low, -30), std::min(high, 30));
    } else if (kind == "cancel") {
      v[i] = i % 2 ? v[i - 1] * (bits % 5 ? 1 : 1 + std::ldexp(1.0, -static_cast<int>(bits % 9))) : normal * 8;
    } else if (kind == "subnormal") {
      v[i] = test::random_double(seed, i, low, low + 12);
    } else if (kind == "powers") {
      v[i] = std::ldexp(bits & 1 ? 1.0 : -1.0, static_cast<int>((bits >> 1) % 24) - 12);
    } else if (kind == "largest") {  // sums of one sign, as large as a step has them
      v[i] = (bits & 15) ? 1.999 : 1.0;
    } else if (kind == "overflow") {
      v[i] = (bits & 3) ? largest : -largest / 3;
    } else if (kind == "edge") {  // products of 2^-126 and a little less than its half ulp
      v[i] = std::ldexp((bits & 8 ? 1.0 : -1.0) * (1 + 0.25 * static_cast<double>(bits % 4)), bits & 16 ? -63 : -76);
    } else if (kind == "mostly_zero") {
      v[i] = bits % 7 ? (bits & 8 ? 0.0 : -0.0) : normal;
    } else if (kind == "tiny") {
      v[i] = test::random_double(seed, i, low, low + 3) * (bits % 3 ? 1 : 256);
    } else {
      v[i] = kind == "positive" ? std::abs(normal) : normal;
    }
  }
  if (kind == "outliers" && high > 100)  // which send the rest through float64 lanes
    for (std::size_t i = 0; i < v.size(); i += 89) v[i] = std::ldexp(v[i], i % 2 ? -110 : 90);
  if (kind == "specials" || kind == "bits") test::sprinkle(v, format, seed, kind == "bits" ? 400 : 60);
  if (kind == "cancel")
    for (std::size_t i = 1; i < v.size(); i += 2) v[i] = -v[i];
  return v;
}

std::vector<std::uint32_t> patterns(const Tensor& t) {
  std::vector<std::uint32_t> list(t.values.size(), 0);
  if (list.empty()) return list;
  const std::size_t width = t.bytes.size() / list.size();
  for (std::size_t i = 0; i < list.size(); ++i) __builtin_memcpy(&list[i], t.bytes.data() + i * width, width);
  return list;
}

struct Case {
  mma::Unit unit;
  mma::Instruction instruction;
  std::int64_t m, n, k;
  bool transposed, continued, bias;
  std::string kind;
};

// NaN of any bits as the unit has it.
float as_float(FormatId accumulate, std::uint32_t bits) {
  const double value = accumulate == FormatId::float16
                           ? formats::decode<formats::float16>(static_cast<std::uint16_t>(bits))
                           : formats::decode<formats::float32>(bits);
  return value == value ? static_cast<float>(value) : base::bit_cast<float>(0x7FFFFFFFu);
}

std::uint32_t word(float x) { return base::bit_cast<std::uint32_t>(x); }

std::uint32_t accumulator_of(FormatId accumulate, double value) {
  if (accumulate == FormatId::float16) return formats::encode<formats::float16>(value, {}).bits;
  return formats::encode<formats::float32>(value, {}).bits;
}

void check(const Case& c, std::uint64_t seed) {
  const bool torch = c.instruction.form == mma::Form::torch;
  const mma::Instruction ins =
      torch ? mma::torch_instruction(c.instruction, c.m, c.k, c.n, false, c.transposed && c.k > 1) : c.instruction;
  const Tensor a = test::tensor(ins.a, draw(c.kind, ins.a, seed, c.m * c.k));
  const Tensor b = test::tensor(ins.b, draw(c.kind, ins.b, seed + 1, c.k * c.n));
  const Tensor start = test::tensor(ins.accumulate, draw(c.kind, ins.accumulate, seed + 2, c.m * c.n));
  const Tensor bias = test::tensor(ins.a, draw("normal", ins.a, seed + 3, c.n));
  const auto x = patterns(a), y = patterns(b);
  std::vector<float> expected(static_cast<std::size_t>(c.m * c.n)), before(expected.size());
  std::vector<std::uint32_t> column(static_cast<std::size_t>(c.k));
  for (std::int64_t i = 0; i < c.m; ++i) {
    for (std::int64_t j = 0; j < c.n; ++j) {
      for (std::int64_t k = 0; k < c.k; ++k)
        column[static_cast<std::size_t>(k)] = y[static_cast<std::size_t>(c.transposed ? j * c.k + k : k * c.n + j)];
      const std::size_t at = static_cast<std::size_t>(i * c.n + j);
      const double first = c.continued ? start.values[at] : 0;
      before[at] = static_cast<float>(first);
      std::uint32_t d = mma::walk(ins, x.data() + i * c.k, column.data(), c.k, accumulator_of(ins.accumulate, first));
      if (c.bias)
        d = mma::add(ins.accumulate, d, accumulator_of(ins.accumulate, bias.values[static_cast<std::size_t>(j)]));
      expected[at] = as_float(ins.accumulate, d);
    }
  }
  for (const auto& e : test::usable_executors()) {
    for (const int threads : {1, 3}) {
      base::set_num_threads(threads);
      setenv("GRADKERN_UNITS", threads == 1 ? "software" : "processor", 1);
      std::vector<float> wide = before;
      executor::ProductArgs args{};
      const executor::ProductArgs earlier{};
      args.m = c.m;
      args.n = c.n;
      args.k = c.k;
      args.a = {ins.a, a.data(), c.k, 1};
      args.b = {ins.b, b.data(), c.transposed ? 1 : c.n, c.transposed ? c.k : 1};
      args.operands = ins.a;
      args.accumulate = ins.accumulate;
      args.unit = static_cast<int>(c.unit);
      args.instruction_k = c.instruction.k;
      args.bias_format = ins.a;
      args.bias = c.bias ? bias.data() : nullptr;
      args.wide = wide.data();
      args.continued = c.continued ? &earlier : nullptr;
      e.products(e, &args, 1);
      std::int64_t wrong = 0, first = -1;
      for (std::size_t i = 0; i < wide.size(); ++i) {
        // The fma chain has a NaN of its own.
        const bool nan = ins.form == mma::Form::fused_half && expected[i] != expected[i];
        if (nan ? wide[i] != wide[i] : word(wide[i]) == word(expected[i])) continue;
        if (!wrong++) first = static_cast<std::int64_t>(i);
      }
      CHECK(wrong == 0, e.name, threads, "threads", mma::unit_names[static_cast<int>(c.unit)], test::name_of(ins.a),
            test::name_of(ins.b), test::name_of(ins.accumulate), "k", ins.k, c.kind, c.m, c.n, c.k, "wrong", wrong,
            "of", wide.size(), "first", first, std::hex, first < 0 ? 0 : word(wide[static_cast<std::size_t>(first)]),
            first < 0 ? 0 : word(expected[static_cast<std::size_t>(first)]));
    }
  }
  base::set_num_threads(1);
}

std::vector<std::pair<FormatId, FormatId>> operands_of(const mma::Row& row) {
  switch (row.operands) {
    case mma::Operands::float16:
      return {{FormatId::float16, FormatId::float16}};
    case mma::Operands::bfloat16:
      return {{FormatId::bfloat16, FormatId::bfloat16}};
    case mma::Operands::tfloat32:
      return {{FormatId::tfloat32, FormatId::tfloat32}};
    default:
      return {{FormatId::float8_e4m3fn, FormatId::float8_e4m3fn},
              {FormatId::float8_e5m2, FormatId::float8_e5m2},
              {FormatId::float8_e4m3fn, FormatId::float8_e5m2}};
  }
}

}  // namespace

int main() {
  std::uint64_t seed = 1;
  for (const mma::Row& row : mma::rows) {
    for (const auto& [a, b] : operands_of(row)) {
      for (const FormatId accumulate : {FormatId::float32, FormatId::float16}) {
        const mma::Instruction ins = mma::instruction_of(row, a, b, accumulate);
        if (!ins.k) continue;
        for (const char* kind : classes) {
          check({row.unit, ins, 5, 70, 100, false, (seed & 8) != 0, false, kind}, seed);
          check({row.unit, ins, 3, 9, 37, true, (seed & 8) == 0, true, kind}, seed + 4);
          seed += 16 + 8;
        }
      }
    }
  }
  // What rounds to the smallest normal number, where subnormals are flushed: C is such a number.
  for (const auto unit : {mma::Unit::x86_amx, mma::Unit::x86_avx512_bf16}) {
    const auto bfloat = mma::find(unit, FormatId::bfloat16, FormatId::bfloat16, FormatId::float32);
    for (const std::int64_t k : {1, 2, 3, 31, 32, 33, 512, 545, 1100})
      for (const char* kind : {"normal", "edge", "subnormal", "bits", "mostly_zero"})
        for (const bool transposed : {false, true})
          check({unit, bfloat, k == 33 ? 530 : 17, 35, k, transposed, k % 2 == 1, k == 32, kind}, seed++);
  }
  // Sums that oneDNN cuts into blocks of their own.
  const auto torch = mma::find(mma::Unit::torch_cpu, FormatId::bfloat16, FormatId::bfloat16, FormatId::float32);
  for (const std::int64_t k : {40, 66, 112, 128})
    for (const char* kind : {"cancel", "subnormal", "bits"})
      check({mma::Unit::torch_cpu, torch, 9, 40, k, k == 66, k == 40, k > 40, kind}, seed++);
  // Every size around the panels, and none at all.
  const auto ins = mma::find(mma::Unit::hopper, FormatId::float16, FormatId::float16, FormatId::float32);
  for (const std::int64_t n : {1, 15, 64, 65, 130})
    for (const std::int64_t k : {0, 1, 64, 65, 129})
      check({mma::Unit::hopper, ins, 130, n, k, n == 65, false, true, "normal"}, seed++);
  return test::report();
}
