#include "cpu/mma.hpp"

#include <algorithm>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "mma/model.hpp"
#include "simd/truncation.hpp"

namespace gradkern::cpu {
namespace {

using formats::FormatId;

constexpr std::int32_t infinite = 0x7F800000;
constexpr int most_span = 126;                  // of both operands' exponents, that sums of bytes can hold
constexpr int least_sum = -95, most_sum = 100;  // of exponents, where no float32 lane under- or overflows

std::int32_t magnitude_of(float x) { return base::bit_cast<std::int32_t>(x) & 0x7FFFFFFF; }

// The exponents of the finite values that are not zero.
struct Exponents {
  std::int32_t low = infinite - 1, high = 1;  // magnitudes as bits
  bool special = false;

  void merge(const Exponents& other) {
    low = std::min(low, other.low);
    high = std::max(high, other.high);
    special |= other.special;
  }
};

Exponents survey(const float* values, std::int64_t begin, std::int64_t end) {
  std::int32_t low = infinite - 1, high = 1, largest = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int32_t m = magnitude_of(values[i]);
    const std::int32_t finite = m < infinite ? m : 0;
    largest = m > largest ? m : largest;
    high = finite > high ? finite : high;
    low = finite != 0 && finite < low ? finite : low;
  }
  return {low, high, largest >= infinite};
}

Exponents survey(const float* values, std::int64_t size) {
  constexpr std::int64_t chunk = 65536;
  std::vector<Exponents> parts(static_cast<std::size_t>(base::chunk_count(size, chunk)));
  base::parallel_for(static_cast<std::int64_t>(parts.size()), [&](std::int64_t c) {
    parts[static_cast<std::size_t>(c)] = survey(values, c * chunk, std::min(size, (c + 1) * chunk));
  });
  Exponents all;
  for (const Exponents& part : parts) all.merge(part);
  if (all.low > all.high) all.low = all.high = 127 << 23;  // zeros only
  return all;
}

// The exponent of a subnormal's field.
int exponent_floor(FormatId format, mma::Form form) {
  if (form == mma::Form::halves) return -14;  // as float16
  return formats::visit(format, [](auto f) { return formats::Layout<decltype(f)>::min_exponent; });
}

std::uint32_t pattern(FormatId format, float value) {
  return formats::visit(format, [&](auto f) {
    return static_cast<std::uint32_t>(formats::encode<decltype(f)>(static_cast<double>(value), {}).bits);
  });
}

float value_of(FormatId accumulate, std::uint32_t bits) {
  if (accumulate == FormatId::float32) return base::bit_cast<float>(bits);
  if (bits == mma::Hardware::nan(mma::Output::half))
    return base::bit_cast<float>(mma::Hardware::nan(mma::Output::truncated));
  return static_cast<float>(formats::decode<formats::float16>(static_cast<std::uint16_t>(bits)));
}

}  // namespace

mma::Instruction unit_instruction(const executor::ProductArgs& args) {
  const mma::Instruction i =
      mma::find(static_cast<mma::Unit>(args.unit), mma::operand_format(args.a.format, args.operands),
                mma::operand_format(args.b.format, args.operands), args.accumulate, args.instruction_k);
  base::expects(i.k > 0, "product: the matrix unit has no instruction for these formats");
  if (i.form != mma::Form::torch) return i;
  const auto apart = [](std::int64_t near, std::int64_t far) { return near == 1 && far != 1; };
  const mma::Instruction found =
      mma::torch_instruction(i, args.m, args.k, args.n, apart(args.a.row_stride, args.a.column_stride),
                             apart(args.b.row_stride, args.b.column_stride));
  base::expects(
      found.k > 0,
      "product: how torch_cpu sums this product is not known: float16 sums may have 512 products, bfloat16 sums 256, "
      "or 128 where 32 does not divide them and another even number does");
  return found;
}

UnitPlan::UnitPlan(const executor::ProductArgs& args, const float* a, const float* b, const float* bias)
    : product_{}, a_(a), b_(b) {
  UnitProduct& p = product_;
  p.instruction = unit_instruction(args);
  p.a = a;
  p.a_row = args.a.row_stride;
  p.a_step = args.a.column_stride;
  p.b = b;
  p.b_step = args.b.row_stride;
  p.b_column = args.b.column_stride;
  p.bias = bias;
  p.bias_row = args.bias_row;
  p.c = static_cast<float*>(args.wide);
  p.n = args.n;
  p.k = args.k;
  p.continued = args.continued != nullptr;
  if (p.k == 0) {  // operands without entries: something to point at, and nowhere to go from it
    static const float nothing = 0;
    p.a = p.b = &nothing;
    p.a_row = p.a_step = p.b_step = p.b_column = 0;
  }
  if (!mma::rounds_each(p.instruction.form)) survey_exponents(args);
}

void UnitPlan::survey_exponents(const executor::ProductArgs& args) {
  UnitProduct& p = product_;
  const Exponents left = survey(a_, args.m * args.k), right = survey(b_, args.k * args.n);
  const auto rule = [&](FormatId format, const Exponents& e, int& low, int& high) {
    const int floor = exponent_floor(format, p.instruction.form);
    low = std::max((e.low >> 23) - 127, floor);
    high = std::max((e.high >> 23) - 127, floor);
    return ExponentRule{floor, 0, -2000, 0};
  };
  int a_low = 0, a_high = 0, b_low = 0, b_high = 0;
  p.a_rule = rule(p.instruction.a, left, a_low, a_high);
  p.b_rule = rule(p.instruction.b, right, b_low, b_high);
  p.wide = a_high - a_low + b_high - b_low > most_span || a_low + b_low < least_sum || a_high + b_high > most_sum;
  if (!p.wide) {
    // A zero's sum with any other stays below any sum without one.
    const int a_least = b_high - b_low + 1, b_least = a_high - a_low + 1;
    p.a_rule = {p.a_rule.floor, a_least - a_low, 0, a_least};
    p.b_rule = {p.b_rule.floor, b_least - b_low, 0, b_least};
  }
  if (left.special || right.special) set_aside(args);
}

// The loop sees zeros in place of what is not finite.
void UnitPlan::set_aside(const executor::ProductArgs& args) {
  const auto look = [&](const float* values, std::int64_t size, std::vector<float>& finite) {
    finite.assign(values, values + size);
    for (float& x : finite) x = magnitude_of(x) < infinite ? x : 0.0f;
    return finite.data();
  };
  const auto worst = [&](const float* values, std::int64_t step) {
    Kind kind = Kind::finite;
    for (std::int64_t k = 0; k < args.k; ++k) {
      const std::int32_t m = magnitude_of(values[k * step]);
      kind = std::max(kind, m < infinite ? Kind::finite : m == infinite ? Kind::infinite : Kind::nan);
    }
    return kind;
  };
  for (std::int64_t i = 0; i < args.m; ++i) rows_.push_back(worst(a_ + i * product_.a_row, product_.a_step));
  for (std::int64_t j = 0; j < args.n; ++j) columns_.push_back(worst(b_ + j * product_.b_column, product_.b_step));
  product_.a = look(a_, args.m * args.k, finite_a_);
  product_.b = look(b_, args.k * args.n, finite_b_);
}

float UnitPlan::model(const std::vector<std::uint32_t>& row, std::int64_t i, std::int64_t j) const {
  const UnitProduct& p = product_;
  std::vector<std::uint32_t> column(row.size());
  for (std::size_t k = 0; k < column.size(); ++k)
    column[k] = pattern(p.instruction.b, b_[static_cast<std::int64_t>(k) * p.b_step + j * p.b_column]);
  const float start = p.continued ? p.c[i * p.n + j] : 0.0f;
  const FormatId acc = p.instruction.accumulate;
  std::uint32_t d = mma::walk(p.instruction, row.data(), column.data(), p.k, pattern(acc, start));
  if (p.bias) d = mma::add(acc, d, pattern(acc, p.bias[i * p.bias_row + j]));
  return value_of(acc, d);
}

// Products too small for anything but the model.
void UnitPlan::run_model(const ProductRange& range) const {
  const UnitProduct& p = product_;
  std::vector<std::uint32_t> row(static_cast<std::size_t>(p.k));
  for (std::int64_t i = range.row_begin; i < range.row_end; ++i) {
    for (std::size_t k = 0; k < row.size(); ++k)
      row[k] = pattern(p.instruction.a, a_[i * p.a_row + static_cast<std::int64_t>(k) * p.a_step]);
    for (std::int64_t j = range.column_begin; j < range.column_end; ++j) p.c[i * p.n + j] = model(row, i, j);
  }
}

std::vector<UnitPlan::Fix> UnitPlan::fixes(const ProductRange& range) const {
  std::vector<Fix> list;
  if (rows_.empty()) return list;
  const UnitProduct& p = product_;
  const float nan = base::bit_cast<float>(mma::Hardware::nan(mma::Output::truncated));
  std::vector<std::uint32_t> row(static_cast<std::size_t>(p.k));
  for (std::int64_t i = range.row_begin; i < range.row_end; ++i) {
    bool ready = false;
    for (std::int64_t j = range.column_begin; j < range.column_end; ++j) {
      const Kind kind = std::max(rows_[static_cast<std::size_t>(i)], columns_[static_cast<std::size_t>(j)]);
      if (kind == Kind::finite) continue;
      if (kind == Kind::infinite && !ready) {
        for (std::size_t k = 0; k < row.size(); ++k)
          row[k] = pattern(p.instruction.a, a_[i * p.a_row + static_cast<std::int64_t>(k) * p.a_step]);
        ready = true;
      }
      list.push_back({i * p.n + j, kind == Kind::nan ? nan : model(row, i, j)});
    }
  }
  return list;
}

void UnitPlan::run(const Kernels& kernels, const ProductRange& range, char* scratch) const {
  const simd::NearestEven guard;
  const mma::Form form = product_.instruction.form;
  if (form == mma::Form::interleaved || form == mma::Form::registers) return run_model(range);
  const std::vector<Fix> list = fixes(range);
  in_blocks(product_, product_.instruction,
            [&](const UnitProduct& block) { kernels.unit_product(block, range, scratch); });
  for (const Fix& fix : list) product_.c[fix.at] = fix.value;
}

}  // namespace gradkern::cpu
