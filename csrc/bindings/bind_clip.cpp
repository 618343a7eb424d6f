// Gradients looked up once, surveyed and scaled: ClipGroup.
#include <algorithm>

#include "base/expects.hpp"
#include "bindings/module.hpp"

namespace gradkern::bindings {
namespace {

// A Survey as one row of a NumPy structured array; the norm is mantissa * 2^exponent.
struct SurveyRecord {
  std::int64_t size, nan, inf, first_nonfinite, exponent;
  double amax, mantissa;
};

SurveyRecord record_of(const ops::Survey& s, ops::Norm p, std::int64_t size) {
  const ops::ScaledNorm norm = ops::norm_of(s, p);
  return {size, s.nan, s.inf, s.first_nonfinite, norm.exponent, s.amax, norm.mantissa};
}

class ClipGroup {
 public:
  // Sources and, if they are to be clipped, targets: as many arrays of the same sizes and formats.
  ClipGroup(std::vector<py::array> sources, std::vector<py::array> targets, const std::vector<int>& format_ids)
      : sources_(std::move(sources)), targets_(std::move(targets)), surveys_(sources_.size()) {
    base::expects(sources_.size() == format_ids.size() && (targets_.empty() || targets_.size() == sources_.size()),
                  "ClipGroup: sources, targets and formats differ in number");
    tensors_.reserve(sources_.size());
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const auto format = format_from(format_ids[i]);
      void* target = nullptr;
      if (!targets_.empty()) {
        base::expects(targets_[i].size() == sources_[i].size(), "ClipGroup: a source and its target differ in size");
        target = writable_bits_of(targets_[i], format);
      }
      tensors_.push_back({sources_[i].size(), format, bits_of(sources_[i], format), target});
    }
  }

  std::size_t size() const { return tensors_.size(); }

  // Whether any two targets share memory.
  bool overlap() const {
    std::vector<std::pair<std::uintptr_t, std::uintptr_t>> ranges;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const auto begin = reinterpret_cast<std::uintptr_t>(tensors_[i].target);
      if (tensors_[i].size) ranges.emplace_back(begin, begin + static_cast<std::uintptr_t>(targets_[i].nbytes()));
    }
    if (!std::is_sorted(ranges.begin(), ranges.end())) std::sort(ranges.begin(), ranges.end());
    for (std::size_t i = 1; i < ranges.size(); ++i)
      if (ranges[i].first < ranges[i - 1].second) return true;
    return false;
  }

  // The records, and that of the first `counted` tensors together.
  py::tuple survey(int p, std::size_t counted) {
    base::expects(p >= 0 && p <= 2 && counted <= tensors_.size(), "ClipGroup: unknown norm, or too many tensors");
    const auto norm = static_cast<ops::Norm>(p);
    ops::Survey total;
    std::int64_t entries = 0;
    {
      py::gil_scoped_release release;
      std::vector<ops::Survey> surveys(tensors_.size());
      const auto& e = executor::current();
      e.clip_survey(e, tensors_.data(), static_cast<std::int64_t>(tensors_.size()), norm, surveys.data());
      surveys_.swap(surveys);
      for (std::size_t i = 0; i < counted; ++i) {
        total.merge(surveys_[i]);
        entries += tensors_[i].size;
      }
    }
    py::array_t<SurveyRecord> records(static_cast<py::ssize_t>(tensors_.size()));
    SurveyRecord* out = records.mutable_data();
    for (std::size_t i = 0; i < tensors_.size(); ++i) out[i] = record_of(surveys_[i], norm, tensors_[i].size);
    py::array_t<SurveyRecord> together(1);
    together.mutable_data()[0] = record_of(total, norm, entries);
    return py::make_tuple(records, together);
  }

  // Multiplies the first tensors by first * second where write is set, as the last survey found them, and then sets
  // owner[key] = values for each of `back`: all in this one call, so that no signal comes between.
  py::tuple scale(const py::array_t<double>& first, const py::array_t<double>& second, const py::array_t<bool>& write,
                  bool zero, const std::vector<py::tuple>& back) {
    const auto count = static_cast<std::size_t>(first.size());
    base::expects(count <= targets_.size() && second.size() == first.size() && write.size() == first.size(),
                  "ClipGroup: factors do not fit the tensors");
    std::vector<ops::ClipFactor> factors(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto at = static_cast<py::ssize_t>(i);
      factors[i] = {first.at(at), second.at(at), write.at(at)};
    }
    std::vector<ops::ClipCounts> counts(count);
    {
      py::gil_scoped_release release;
      const auto& e = executor::current();
      e.clip_scale(e, tensors_.data(), static_cast<std::int64_t>(count), surveys_.data(), factors.data(), zero,
                   counts.data());
    }
    for (const py::tuple& item : back)
      if (PyObject_SetItem(item[0].cast<py::object>().ptr(), item[1].cast<py::object>().ptr(),
                           item[2].cast<py::object>().ptr()) != 0)
        throw py::error_already_set();
    ops::ClipCounts total;
    for (const auto& c : counts) total.merge(c);
    return py::make_tuple(total.flushed, total.subnormal, total.overflow, total.changed);
  }

 private:
  std::vector<py::array> sources_, targets_;
  std::vector<executor::ClipTensor> tensors_;
  std::vector<ops::Survey> surveys_;
};

}  // namespace

void bind_clip(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(SurveyRecord, size, nan, inf, first_nonfinite, exponent, amax, mantissa);
  py::class_<ClipGroup>(m, "ClipGroup")
      .def(py::init<std::vector<py::array>, std::vector<py::array>, const std::vector<int>&>(), py::arg("sources"),
           py::arg("targets"), py::arg("formats"))
      .def("__len__", &ClipGroup::size)
      .def("overlap", &ClipGroup::overlap)
      .def("survey", &ClipGroup::survey, py::arg("norm"), py::arg("counted"))
      .def("scale", &ClipGroup::scale, py::arg("first"), py::arg("second"), py::arg("write"), py::arg("zero"),
           py::arg("back"));
}

}  // namespace gradkern::bindings
