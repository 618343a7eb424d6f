// chain::Tangent and the slopes of a chain: Python gives the factors, and blocks of vectors to send through them.
#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "chain/tangent.hpp"

namespace gradkern::bindings {
namespace {

using Bits = std::pair<py::array, int>;  // and its format
using Vectors = py::array_t<double, py::array::c_style | py::array::forcecast>;
using LayerTuple = std::tuple<Bits, std::optional<Bits>, int, double>;  // weight, bias, activation, alpha

chain::Source source_of(const Bits& bits) {
  const auto format = format_from(bits.second);
  return {format, bits_of(bits.first, format), bits.first.size()};
}

// Lets Ctrl-C through.
void tick() {
  const py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

class PyTangent {
 public:
  explicit PyTangent(const std::vector<std::pair<Bits, Vectors>>& factors) {
    std::vector<chain::Factor> list;
    for (const auto& [weight, slope] : factors) {
      base::expects(weight.first.ndim() == 2, "jacobian: a weight must be a matrix");
      base::expects(slope.size() == weight.first.shape(0), "jacobian: a slope for each row of the weight");
      kept_.push_back(weight.first);
      kept_.push_back(slope);
      list.push_back({weight.first.shape(0), weight.first.shape(1), source_of(weight), slope.data()});
    }
    tangent_ = std::make_unique<chain::Tangent>(executor::current(), std::move(list));
  }

  py::tuple forward(const Vectors& vectors) const { return pass(vectors, false); }
  py::tuple backward(const Vectors& vectors) const { return pass(vectors, true); }

 private:
  py::tuple pass(const Vectors& vectors, bool transposed) const {
    const chain::Tangent& tangent = *tangent_;
    base::expects(vectors.ndim() == 2 && vectors.shape(0) > 0, "jacobian: vectors are rows of a matrix");
    base::expects(vectors.shape(1) == (transposed ? tangent.n_out() : tangent.n_in()),
                  "jacobian: vectors have the wrong size");
    const auto count = vectors.shape(0);
    std::vector<double> block(vectors.data(), vectors.data() + vectors.size());
    py::array_t<double> triangles({static_cast<py::ssize_t>(tangent.depth()), count, count});
    double* data = triangles.mutable_data();
    {
      const py::gil_scoped_release release;
      transposed ? tangent.backward(block, count, data, tick) : tangent.forward(block, count, data, tick);
    }
    const auto size = static_cast<py::ssize_t>(block.size()) / count;
    return py::make_tuple(py::array_t<double>({count, size}, block.data()), triangles);
  }

  std::vector<py::array> kept_;
  std::unique_ptr<chain::Tangent> tangent_;
};

std::vector<py::array_t<double>> slopes(const std::vector<LayerTuple>& layers, const Vectors& x) {
  std::vector<chain::Layer> list;
  for (const auto& [weight, bias, activation, alpha] : layers) {
    base::expects(weight.first.ndim() == 2, "jacobian: a weight must be a matrix");
    const std::int64_t n_in = list.empty() ? x.size() : list.back().n_out;
    base::expects(weight.first.shape(1) == n_in, "jacobian: layers do not chain");
    list.push_back({n_in, weight.first.shape(0), source_of(weight), bias ? source_of(*bias) : chain::Source{},
                    activation_from(activation), alpha});
  }
  std::vector<chain::Values> found;
  {
    const py::gil_scoped_release release;
    found = chain::slopes(executor::current(), list, {x.data(), x.data() + x.size()}, tick);
  }
  std::vector<py::array_t<double>> result;
  for (const auto& slope : found) result.emplace_back(static_cast<py::ssize_t>(slope.size()), slope.data());
  return result;
}

}  // namespace

void bind_jacobian(py::module_& m) {
  py::class_<PyTangent>(m, "Tangent")
      .def(py::init<const std::vector<std::pair<Bits, Vectors>>&>(), py::arg("factors"))
      .def("forward", &PyTangent::forward, py::arg("vectors"),
           "(images, triangles) of vectors (count, n_in), made orthonormal after each layer.")
      .def("backward", &PyTangent::backward, py::arg("vectors"),
           "The same of vectors (count, n_out), through the transposed factors.");
  m.def("slopes", &slopes, py::arg("layers"), py::arg("x"), "f'(z) of each layer at one input.");
}

}  // namespace gradkern::bindings
