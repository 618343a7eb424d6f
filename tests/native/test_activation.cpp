// Activations, their derivatives and the elementary functions: every executor against the scalar loop, bit by bit.
#include <utility>

#include "base/thread_pool.hpp"
#include "check.hpp"
#include "cpu/kernels.hpp"
#include "ref/activation.hpp"
#include "tensors.hpp"

namespace gradkern {
namespace {

using test::FormatId;
using test::Tensor;

template <class T>
void compare(const executor::Executor& e, const char* what, ops::ActivationId id, const Tensor& z,
             const std::vector<T>& got, const std::vector<double>& truth) {
  for (std::size_t i = 0; i < truth.size(); ++i) {
    CHECK(test::same(double(got[i]), truth[i]), e.name, what, ops::activation_names[static_cast<int>(id)],
          test::name_of(z.format), z.size(), "z", z.values[i], "got", double(got[i]), "expected", truth[i]);
  }
}

template <class T>
void one(const std::vector<executor::Executor>& executors, ops::ActivationId id, double alpha, const Tensor& z,
         const Tensor& grad_output) {
  const auto phi = ref::activation_forward<T>(id, alpha, z.values);
  const Tensor output = test::tensor(z.format, phi);
  for (const auto& e : executors) {
    std::vector<T> wide(z.values.size(), T(-7)), slope(z.values.size(), T(-7));  // in wide_format
    executor::ActivationArgs args{z.size(), id, alpha, z.format, z.data(), nullptr, nullptr, wide.data(), nullptr};
    e.activation_forward(e, args);
    compare(e, "forward", id, z, wide, phi);
    for (const bool stored : {false, true}) {
      const auto exact_slope =
          ref::activation_slope<T>(id, alpha, z.values, stored ? output.values : std::vector<double>());
      const auto gradient = ref::activation_backward<T>(grad_output.values, exact_slope);
      args.grad_output = grad_output.data();
      args.output = stored ? output.data() : nullptr;
      args.slope = slope.data();
      e.activation_backward(e, args);
      compare(e, stored ? "stored slope" : "slope", id, z, slope, exact_slope);
      compare(e, stored ? "stored backward" : "backward", id, z, wide, gradient);
      args.slope = nullptr;
      e.activation_backward(e, args);
      compare(e, "backward without slope", id, z, wide, gradient);
    }
  }
}

// Every pattern of a 16-bit format; for the wide ones a grid of exponents, dense where the functions bend.
std::vector<double> inputs(FormatId format, std::int64_t random_count) {
  std::vector<double> values = test::special_values(format);
  if (format == FormatId::float16) {
    for (std::uint64_t pattern = 0; pattern < 65536; ++pattern)
      values.push_back(formats::decode<formats::float16>(static_cast<std::uint16_t>(pattern)));
    return values;
  }
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(random_count); ++i) {
    values.push_back(test::random_double(31, i, -5, 4));
    values.push_back(test::random_double(32, i, format == FormatId::float64 ? -1022 : -149, 8));
  }
  return values;
}

void activations(const std::vector<executor::Executor>& executors) {
  for (const FormatId format : {FormatId::float16, FormatId::float32, FormatId::float64}) {
    const Tensor z = test::tensor(format, inputs(format, 20000));
    auto gradients = test::random_values(33, z.size(), -8, 3);
    test::sprinkle(gradients, format, 34, 97);
    const Tensor grad_output = test::tensor(format, gradients);
    for (int a = 0; a < ops::activation_count; ++a) {
      const auto id = static_cast<ops::ActivationId>(a);
      const bool twice = id == ops::ActivationId::leaky_relu || id == ops::ActivationId::elu;
      for (const double alpha : twice ? std::vector<double>{0.01, 1.0} : std::vector<double>{0.0}) {
        if (format == FormatId::float64) {
          one<double>(executors, id, alpha, z, grad_output);
        } else {
          one<float>(executors, id, alpha, z, grad_output);
        }
      }
    }
  }
}

// Sizes around the vectors' lanes and the blocks of 512; nothing beyond the end is written.
void ragged_sizes(const std::vector<executor::Executor>& executors) {
  for (const std::int64_t size : {0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 511, 512, 513, 1025}) {
    const Tensor z = test::tensor(FormatId::bfloat16, test::random_values(35, size, -4, 3));
    const Tensor grad_output = test::tensor(FormatId::bfloat16, test::random_values(36, size, -4, 3));
    for (const auto id : {ops::ActivationId::gelu, ops::ActivationId::relu, ops::ActivationId::tanh})
      one<float>(executors, id, 0.0, z, grad_output);
  }
}

template <class T>
void elementary(const executor::Executor& e, const std::vector<T>& x,
                void (*call)(const executor::Executor&, int, const T*, T*, std::int64_t)) {
  for (int function = 0; function < cpu::elementary_count; ++function) {
    std::vector<T> y(x.size() + 1, T(-7));
    call(e, function, x.data(), y.data(), static_cast<std::int64_t>(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(test::same(y[i], ref::elementary(function, x[i])), e.name, cpu::elementary_names[function], x[i], "got",
            y[i], "expected", ref::elementary(function, x[i]));
    }
    CHECK(y.back() == T(-7), e.name, "wrote past the end");
  }
}

}  // namespace
}  // namespace gradkern

int main() {
  using namespace gradkern;
  const auto executors = test::usable_executors();
  ragged_sizes(executors);
  for (const int threads : {1, 3}) {
    base::set_num_threads(threads);
    activations(executors);
    for (const auto& e : executors) {
      const auto wide = inputs(FormatId::float64, 10001);
      elementary<double>(e, wide, e.elementary_f64);
      elementary<float>(e, std::vector<float>(wide.begin(), wide.end()), e.elementary_f32);
    }
  }
  return test::report();
}
