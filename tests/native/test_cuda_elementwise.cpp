// The element-wise CUDA kernels on the host, through the device executor, against the CPU's executor: every bit.
#include "check.hpp"
#include "device_table.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using executor::Executor;
using formats::Mode;
using formats::Overflow;
using formats::Rounding;
using formats::Subnormals;
using test::FormatId;

constexpr std::int64_t sizes[] = {0, 1, 15, 16, 17, 2047, 2048, 2049, 16383, 16384, 16385, 50000};

// A tensor in the kernels' memory, so that it is used where it lies, `shift` entries past an aligned address.
class Placed {
 public:
  Placed(FormatId format, const std::vector<double>& values, int shift) {
    const auto t = test::tensor(format, values);
    const std::size_t each = values.empty() ? 0 : t.bytes.size() / values.size();
    cuda::allocate(&base_, static_cast<std::int64_t>(t.bytes.size() + 64), nullptr);
    bytes_ = t.bytes.size();
    data_ = static_cast<std::uint8_t*>(base_) + static_cast<std::size_t>(shift) * each;
    if (bytes_) __builtin_memcpy(data_, t.bytes.data(), bytes_);
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  ~Placed() { cuda::release(base_, nullptr); }

  void* data() const { return data_; }
  bool same(const Placed& other) const { return bytes_ == 0 || __builtin_memcmp(data_, other.data_, bytes_) == 0; }
  // Nothing was written past the end.
  bool intact() const { return data_[bytes_] == 0xFF && data_[bytes_ + 1] == 0xFF; }

 private:
  void* base_ = nullptr;
  std::uint8_t* data_;
  std::size_t bytes_;
};

bool same(const ops::SquareSum& a, const ops::SquareSum& b) {
  return test::same(a.big, b.big) && test::same(a.medium, b.medium) && test::same(a.small, b.small);
}

bool same(const ops::RoundingCounts& a, const ops::RoundingCounts& b) {
  for (int event = 0; event < formats::event_count; ++event)
    if (a.events[event] != b.events[event]) return false;
  return a.first_overflow == b.first_overflow && a.first_flushed == b.first_flushed &&
         test::same(a.max_ulp, b.max_ulp) && same(a.signal, b.signal) && same(a.noise, b.noise);
}

bool same(const ops::UpdateCounts& a, const ops::UpdateCounts& b) {
  return a.unchanged == b.unchanged && a.applied == b.applied && a.lost == b.lost && a.overflow == b.overflow &&
         a.nonfinite == b.nonfinite && a.flushed == b.flushed && a.subnormal == b.subnormal &&
         a.first_overflow == b.first_overflow && a.first_nonfinite == b.first_nonfinite && same(a.wanted, b.wanted) &&
         same(a.made, b.made);
}

struct Executors {
  Executor cpu, device;
};

std::vector<double> values_for(FormatId to, std::uint64_t seed, std::int64_t size, int low, int high, int period) {
  auto values = test::random_values(seed, size, low, high);
  if (period) test::sprinkle(values, to, seed + 100, static_cast<std::uint64_t>(period));
  return values;
}

void convert(const Executors& e, FormatId from, FormatId to, const std::vector<double>& values, double scale,
             const Mode& mode, int shift, bool counted) {
  const auto size = static_cast<std::int64_t>(values.size());
  const std::vector<double> zeros(values.size(), 0.0);
  const Placed source(from, values, shift), expected(to, zeros, shift), got(to, zeros, shift);
  ops::RoundingCounts truth, counts;
  e.cpu.convert(e.cpu, {size, from, to, source.data(), expected.data(), scale, mode, 3, &truth});
  e.device.convert(e.device, {size, from, to, source.data(), got.data(), scale, mode, 3, counted ? &counts : nullptr});
  const auto what = [&] { return test::name_of(from) + " to " + test::name_of(to); };
  CHECK(got.same(expected), what(), size, scale, shift, static_cast<int>(mode.rounding));
  CHECK(got.intact(), what(), size, shift);
  if (counted) CHECK(same(counts, truth), what(), size, scale, shift, static_cast<int>(mode.rounding));
}

std::vector<Mode> modes() {
  std::vector<Mode> list;
  for (const Rounding rounding : {Rounding::nearest_even, Rounding::toward_zero, Rounding::stochastic})
    for (const Overflow overflow : {Overflow::ieee, Overflow::saturate})
      for (const Subnormals subnormals : {Subnormals::keep, Subnormals::flush})
        list.push_back({rounding, overflow, subnormals, 42});
  return list;
}

void conversions(const Executors& e) {
  for (const FormatId to : test::all_formats) {
    for (const FormatId from : test::all_formats) {
      const bool wide = from == FormatId::float64;
      for (const Mode& mode : modes()) {
        convert(e, from, to, values_for(to, 5, 2500, -20, 18, 300), 1, mode, 0, true);
        convert(e, from, to, values_for(to, 6, 1700, -9, 6, 0), 0x1p-7, mode, 0, true);
        convert(e, from, to, values_for(to, 7, 600, wide ? -1070 : -149, wide ? 1020 : 127, 9), 1.7, mode, 0, true);
        convert(e, from, to, values_for(to, 8, 700, wide ? -500 : -140, wide ? 480 : 120, 9), 0x1p60, mode, 0, true);
        convert(e, from, to, values_for(to, 9, 700, -20, 18, 50), 1, mode, 1, true);
        convert(e, from, to, values_for(to, 10, 2100, -20, 18, 40), 3, mode, 0, false);
        convert(e, from, to, values_for(to, 10, 2100, -20, 18, 40), 0.5, mode, 0, false);
      }
    }
    for (const std::int64_t size : sizes)
      for (const FormatId from : {FormatId::float32, FormatId::float64, FormatId::float16})
        for (const bool counted : {true, false})
          convert(e, from, to, values_for(to, 11, size, -9, 8, size % 2 ? 999 : 0), 1, {}, 0, counted);
  }
}

}  // namespace

void elementwise() {
  auto table = test::memory_table();
  table.convert = cuda::convert;
  const Executors e{test::usable_executors().back(), executor::device_executor(table)};
  test::in_every_order([&] { conversions(e); });
}

}  // namespace gradkern

int main() {
  gradkern::elementwise();
  return gradkern::test::report();
}
