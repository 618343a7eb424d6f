// The element-wise CUDA kernels on the host, through the device executor, against the CPU's executor: every bit.
#include <memory>
#include <utility>

#include "check.hpp"
#include "device_table.hpp"
#include "same.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using executor::Executor;
using formats::Mode;
using test::FormatId;
using test::modes;
using test::same;

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
    __builtin_memset(data_ + bytes_, behind, tail);
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  ~Placed() { cuda::release(base_, nullptr); }

  void* data() const { return data_; }
  bool same(const Placed& other) const { return bytes_ == 0 || __builtin_memcmp(data_, other.data_, bytes_) == 0; }
  // Nothing was written past the end, where ordinary numbers lie.
  bool intact() const {
    for (int i = 0; i < tail; ++i)
      if (data_[bytes_ + static_cast<std::size_t>(i)] != behind) return false;
    return true;
  }

 private:
  static constexpr int tail = 48, behind = 0x3A;
  void* base_ = nullptr;
  std::uint8_t* data_;
  std::size_t bytes_;
};

// Ordinary values, and special ones from the second chunk on.
std::vector<double> late_specials(FormatId to) {
  std::vector<double> values(70000, 1.25);
  const auto specials = test::special_values(to);
  for (std::size_t i = 0; i < specials.size(); ++i) values[17000 + 3000 * i] = specials[i];
  return values;
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
    convert(e, FormatId::float64, to, late_specials(to), 0.25, {}, 0, true);
  }
}

// Several tensors at once, of which some go through one launch: alike or not, empty ones between them, more than a launch
// takes.
void lists(const executor::DeviceTable& table, const Executor& cpu) {
  struct Item {
    std::int64_t size;
    FormatId from, to;
    double scale;
    int shift;
    bool in_place = false, counted = true;
    std::uint64_t seed = 42;
    int low = -20;  // exponent
  };
  using enum FormatId;
  const Item items[] = {
      {20000, float32, float16, 1, 0},
      {0, float32, float16, 1, 0},
      {17, float32, float16, 1, 0},
      {16385, float32, float16, 1, 0},
      {2049, float32, float16, 1, 0},
      {300, float32, float16, 0.5, 0},
      {40, float32, bfloat16, 0.5, 0},
      {90, float16, bfloat16, 0.5, 0},
      {1000, float32, float16, 1, 1},
      {900, float32, float16, 1, 0},
      {0, float64, float16, 1, 0},
      {70, float64, float16, 1.7, 0},
      {0, float64, float16, 1.7, 0},
      {800, float32, float32, 3, 0},
      {800, float32, float32, 3, 0, true},
      {500, float32, float32, 0.5, 0},
      {500, float32, float32, 0.5, 0, true, true, 42, -149},
      {600, float32, float16, 1, 0, false, false},
      {600, float32, float16, 1, 0},
      {700, float32, float16, 1, 0, false, true, 43},
      {700, float32, float16, 1, 0},
  };
  for (const bool all_counted : {true, false}) {
    for (Mode mode : modes()) {
      std::vector<std::unique_ptr<Placed>> sources, expected, got, counts;
      std::vector<ops::RoundingCounts> truth(std::size(items));
      std::vector<executor::ConvertArgs> list;
      for (const Item& item : items) {
        const std::size_t i = list.size();
        const std::vector<double> zeros(static_cast<std::size_t>(item.size), 0.0);
        const std::vector<double> places(static_cast<std::size_t>(item.size / ops::rounding_chunk + 1) * 16, 0.0);
        sources.push_back(std::make_unique<Placed>(
            item.from, values_for(item.to, 70 + i, item.size, item.low, item.low + 34, i % 2 ? 90 : 0), item.shift));
        expected.push_back(std::make_unique<Placed>(item.to, zeros, item.shift));
        got.push_back(std::make_unique<Placed>(item.to, zeros, item.shift));
        static_assert(sizeof(ops::RoundingCounts) <= 16 * 8);
        counts.push_back(std::make_unique<Placed>(float64, places, 0));
        mode.seed = item.seed;
        executor::ConvertArgs args{item.size,  item.from, item.to, sources[i]->data(), expected[i]->data(),
                                   item.scale, mode,      i,       &truth[i]};
        cpu.convert(cpu, args);
        if (item.in_place) std::swap(got[i], sources[i]);
        args.stored = got[i]->data();
        if (item.in_place) args.source = args.stored;
        args.counts = all_counted && item.counted ? static_cast<ops::RoundingCounts*>(counts[i]->data()) : nullptr;
        list.push_back(args);
      }
      CHECK(table.convert(list.data(), static_cast<int>(list.size()), nullptr) == 0);
      for (std::size_t i = 0; i < list.size(); ++i) {
        CHECK(got[i]->same(*expected[i]) && got[i]->intact(), i, all_counted, static_cast<int>(mode.rounding));
        if (!list[i].counts) continue;
        ops::RoundingCounts all;
        for (std::int64_t c = 0; c * ops::rounding_chunk < items[i].size; ++c) all.merge(list[i].counts[c]);
        CHECK(same(all, truth[i]), i, static_cast<int>(mode.rounding));
      }
    }
  }
}

void update(const Executors& e, FormatId format, FormatId gradient_format, const std::vector<double>& weights,
            const std::vector<double>& gradients, double rate, const Mode& mode, int shift, bool counted) {
  const auto size = static_cast<std::int64_t>(weights.size());
  const Placed gradient(gradient_format, gradients, shift);
  const Placed expected(format, weights, shift), got(format, weights, shift);  // in place
  ops::UpdateCounts truth, counts;
  const auto run = [&](const Executor& x, const Placed& w, ops::UpdateCounts* c) {
    x.update(x, {size, format, w.data(), gradient_format, gradient.data(), w.data(), rate, mode, 3, c});
  };
  run(e.cpu, expected, &truth);
  run(e.device, got, counted ? &counts : nullptr);
  const auto what = [&] { return test::name_of(format) + " by " + test::name_of(gradient_format); };
  CHECK(got.same(expected), what(), size, rate, shift, static_cast<int>(mode.rounding));
  CHECK(got.intact(), what(), size, shift);
  if (counted) CHECK(same(counts, truth), what(), size, rate, shift, static_cast<int>(mode.rounding));
}

void updates(const Executors& e) {
  for (const FormatId format : test::all_formats) {
    for (const FormatId gradient : test::storage_formats) {
      for (const Mode& mode : modes()) {
        for (const double rate : {0.1, 0x1p-12, 1e300})
          update(e, format, gradient, values_for(format, 11, 1100, -12, 6, 200),
                 values_for(gradient, 12, 1100, -9, 7, 0), rate, mode, 0, rate > 0.01);
        update(e, format, gradient, values_for(format, 13, 300, -12, 6, 20), values_for(gradient, 14, 300, -9, 7, 20),
               -3, mode, 1, true);
      }
    }
    for (const std::int64_t size : sizes)
      for (const bool counted : {true, false})
        update(e, format, FormatId::float32, values_for(format, 15, size, -6, 2, 0),
               values_for(FormatId::float32, 16, size, -9, 7, 0), 0.01, {}, 0, counted);
    update(e, format, FormatId::float32, std::vector<double>(70000, 1.0), late_specials(FormatId::float32), 8, {}, 0,
           true);
  }
  for (const int exponent : {-1060, -600, -430, -250, 0, 250, 480, 700, 1010})
    for (const double rate : {1.0, 0x1p-40})
      update(e, FormatId::float64, FormatId::float64, values_for({}, 21, 1500, exponent - 8, exponent + 8, 0),
             values_for({}, 22, 1500, exponent - 8, exponent + 8, 0), rate, {}, 0, true);
}

void errors(const Executors& e, FormatId format, const std::vector<double>& values, double noise, double scale,
            int power, int shift) {
  const auto size = static_cast<std::int64_t>(values.size());
  std::vector<double> true_values(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    true_values[i] = std::ldexp(values[i], scale == 0 ? power : 0) * (scale == 0 ? 1 : scale);
    true_values[i] *= 1 + noise * test::uniform(9, i);
  }
  const Placed stored(format, values, shift), truth(FormatId::float64, true_values, shift);
  executor::ErrorSums expected, got;
  const auto run = [&](const Executor& x, executor::ErrorSums& sums) {
    x.errors(x, {size, format, stored.data(), static_cast<const double*>(truth.data()), scale, power}, sums);
  };
  run(e.cpu, expected);
  run(e.device, got);
  // Of sums with a NaN or an infinity only the flags mean anything.
  const bool sums =
      got.nonfinite || got.infinite || (same(got.error, expected.error) && same(got.truth, expected.truth));
  CHECK(sums && got.nonfinite == expected.nonfinite && got.infinite == expected.infinite, test::name_of(format), size,
        scale, power, shift);
}

void all_errors(const Executors& e) {
  for (const FormatId format : test::storage_formats) {
    for (const std::int64_t size : sizes) errors(e, format, values_for(format, 31, size, -9, 7, 0), 1e-3, 1, 0, 0);
    for (const int shift : {0, 1}) {
      errors(e, format, values_for(format, 32, 3000, -9, 7, 0), 0.5, 0x1p-30, -30, shift);
      errors(e, format, values_for(format, 33, 3000, -9, 7, 50), 0.5, 1, 0, shift);
    }
  }
  for (const int exponent : {-1050, -500, -440, 0, 520, 1000})
    for (const int power : {0, 40, -60})
      errors(e, FormatId::float64, values_for({}, 34, 2500, exponent - 9, exponent + 9, 0), 0.25, formats::exp2i(power),
             power, 0);
  for (const int power : {1024, 1500, 2090, 2600, -1075, -1100, -1500, -2090, -2600})
    errors(e, FormatId::float64, values_for({}, 35, 2500, power > 0 ? -1074 : 500, power > 0 ? -700 : 1020, 0), 0.25, 0,
           power, 0);
}

void activation(const Executors& e, ops::ActivationId id, FormatId format, const std::vector<double>& values,
                int shift) {
  const auto size = static_cast<std::int64_t>(values.size());
  const FormatId wide_format = executor::wide_format(format);
  const std::vector<double> zeros(values.size(), 0.0);
  const Placed z(format, values, shift), dh(format, test::random_values(41, size, -6, 6), shift);
  const Placed h(format, test::random_values(42, size, -6, 0), shift);
  const auto what = [&] { return std::string(ops::activation_names[static_cast<int>(id)]) + test::name_of(format); };
  const auto compare = [&](auto run) {
    const Placed wide(wide_format, zeros, shift), slope(wide_format, zeros, shift);
    const Placed device_wide(wide_format, zeros, shift), device_slope(wide_format, zeros, shift);
    run(e.cpu, wide, slope);
    run(e.device, device_wide, device_slope);
    CHECK(wide.same(device_wide) && slope.same(device_slope), what(), size, shift);
    CHECK(device_wide.intact() && device_slope.intact(), what(), size, shift);
  };
  executor::ActivationArgs args{size, id, 0.3, format, z.data(), nullptr, nullptr, nullptr, nullptr};
  compare([&](const Executor& x, const Placed& wide, const Placed&) {
    args.wide = wide.data();
    x.activation_forward(x, args);
  });
  args.grad_output = dh.data();
  for (const bool stored : {false, true}) {
    for (const bool with_slope : {false, true}) {
      args.output = stored ? h.data() : nullptr;
      compare([&](const Executor& x, const Placed& wide, const Placed& slope) {
        args.wide = wide.data();
        args.slope = with_slope ? slope.data() : nullptr;
        x.activation_backward(x, args);
      });
    }
  }
}

void activations(const Executors& e) {
  for (int id = 0; id < ops::activation_count; ++id) {
    const auto activation_id = static_cast<ops::ActivationId>(id);
    for (const FormatId format : test::storage_formats) {
      activation(e, activation_id, format, values_for(format, 43, 5000, -20, 8, 40), 0);
      activation(e, activation_id, format, values_for(format, 44, 300, -20, 8, 40), 1);
      for (const std::int64_t size : {0, 1, 3, 15, 17, 2049})
        activation(e, activation_id, format, values_for(format, 45, size, -4, 4, 0), 0);
    }
    activation(e, activation_id, FormatId::float64, values_for(FormatId::float64, 46, 3000, -1074, 1023, 40), 0);
    activation(e, activation_id, FormatId::float32, values_for(FormatId::float32, 46, 3000, -149, 127, 40), 0);
  }
}

template <class T>
void elementary(const Executors& e, FormatId format,
                void (*Executor::*function)(const Executor&, int, const T*, T*, std::int64_t)) {
  for (int which = 0; which < ops::elementary_count; ++which) {
    for (const std::int64_t size : {0, 1, 3, 17, 6001}) {
      for (const int shift : {0, 1}) {
        const Placed x(format, values_for(format, 51, size, -30, 11, 30), shift);
        const std::vector<double> zeros(static_cast<std::size_t>(size), 0.0);
        const Placed expected(format, zeros, shift), got(format, zeros, shift);
        const auto run = [&](const Executor& on, const Placed& y) {
          (on.*function)(on, which, static_cast<const T*>(x.data()), static_cast<T*>(y.data()), size);
        };
        run(e.cpu, expected);
        run(e.device, got);
        CHECK(got.same(expected) && got.intact(), which, size, shift, test::name_of(format));
      }
    }
  }
}

}  // namespace

void elementwise() {
  auto table = test::memory_table();
  table.convert = cuda::convert;
  table.update = cuda::update;
  table.errors = cuda::errors;
  table.activation_forward = cuda::activation_forward;
  table.activation_backward = cuda::activation_backward;
  table.elementary_f32 = cuda::elementary_f32;
  table.elementary_f64 = cuda::elementary_f64;
  const Executors e{test::usable_executors().back(), executor::device_executor(table)};
  lists(table, e.cpu);
  test::in_every_order([&] {
    conversions(e);
    updates(e);
    all_errors(e);
    activations(e);
    elementary<float>(e, FormatId::float32, &Executor::elementary_f32);
    elementary<double>(e, FormatId::float64, &Executor::elementary_f64);
  });
}

}  // namespace gradkern

int main() {
  gradkern::elementwise();
  return gradkern::test::report();
}
