// Activations and elementary functions, one scalar at a time: what every vector must reproduce bit by bit.
//
//   forward    wide = phi(z)
//   backward   slope = phi'(z), or phi' from the stored output h;  wide = dh * slope
// T is float, or double for float64 storage.
#pragma once

#include <vector>

#include "ops/activation.hpp"
#include "ops/elementary.hpp"

namespace gradkern::ref {

template <class T>
std::vector<double> activation_forward(ops::ActivationId id, double alpha, const std::vector<double>& z) {
  std::vector<double> wide;
  for (const double value : z) {
    ops::visit_activation(id, [&](auto activation) {
      wide.push_back(ops::canonical_nan(decltype(activation)::forward(static_cast<T>(value), static_cast<T>(alpha))));
    });
  }
  return wide;
}

// h: the stored outputs, or empty for the exact derivative.
template <class T>
std::vector<double> activation_slope(ops::ActivationId id, double alpha, const std::vector<double>& z,
                                     const std::vector<double>& h) {
  std::vector<double> slope;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const T value = static_cast<T>(z[i]), parameter = static_cast<T>(alpha);
    ops::visit_activation(id, [&](auto activation) {
      using A = decltype(activation);
      slope.push_back(ops::canonical_nan(h.empty()
                                             ? A::derivative(value, parameter)
                                             : ops::derivative_from_output<A>(value, static_cast<T>(h[i]), parameter)));
    });
  }
  return slope;
}

template <class T>
std::vector<double> activation_backward(const std::vector<double>& grad_output, const std::vector<double>& slope) {
  std::vector<double> wide;
  for (std::size_t i = 0; i < slope.size(); ++i) {
    wide.push_back(ops::canonical_nan(static_cast<T>(grad_output[i]) * static_cast<T>(slope[i])));
  }
  return wide;
}

// The elementary function with this number in the executor's table.
template <class T>
T elementary(int function, T x) {
  return ops::canonical_nan(ops::elementary(function, x));
}

}  // namespace gradkern::ref
