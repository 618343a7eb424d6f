// Gradients looked up once, surveyed and scaled: ClipGroup.
#include <algorithm>
#include <memory>

#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "bindings/in_place.hpp"

namespace gradkern::bindings {
namespace {

// A Survey as one row of a NumPy structured array; the norm is mantissa * 2^exponent.
struct SurveyRecord {
  std::int64_t size, nan, inf, first_nonfinite, exponent;
  double amax, mantissa;
};

using Floats = py::array_t<double, py::array::c_style>;
using Flags = py::array_t<bool, py::array::c_style>;

SurveyRecord record_of(const ops::Survey& s, ops::Norm p, std::int64_t size) {
  const ops::ScaledNorm norm = ops::norm_of(s, p);
  return {size, s.nan, s.inf, s.first_nonfinite, norm.exponent, s.amax, norm.mantissa};
}

class ClipGroup {
 public:
  // Sources and, if they are to be clipped, targets: as many arrays of the same sizes and formats. Each is cut into equal
  // rows, tensors of their own; `rows` may be empty, for one each.
  ClipGroup(std::vector<ArrayView> sources, std::vector<ArrayView> targets, const std::vector<int>& format_ids,
            const std::vector<std::int64_t>& rows)
      : sources_(std::move(sources)), targets_(std::move(targets)) {
    const std::size_t count = sources_.size();
    base::expects(count == format_ids.size() && (targets_.empty() || targets_.size() == count) &&
                      (rows.empty() || rows.size() == count),
                  "ClipGroup: sources, targets, formats and rows differ in number");
    writable_ = !targets_.empty();
    tensors_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto format = format_from(format_ids[i]);
      void* target = nullptr;
      if (!targets_.empty()) {
        base::expects(targets_[i].size() == sources_[i].size(), "ClipGroup: a source and its target differ in size");
        target = writable_bits_of(targets_[i], format);
      }
      add({sources_[i].size(), format, bits_of(sources_[i], format), target}, rows.empty() ? 1 : rows[i],
          sources_[i].itemsize());
    }
    surveys_.resize(tensors_.size());
  }

  // Plain arrays to be clipped where they lie, or nothing: see plain_arrays.
  static std::unique_ptr<ClipGroup> in_place(const py::list& arrays, const std::map<int, int>& formats,
                                             const py::object& tensor_type) {
    auto tensors = plain_arrays(arrays, formats, tensor_type);
    if (!tensors) return nullptr;
    auto group = std::unique_ptr<ClipGroup>(new ClipGroup);
    group->owners_ = arrays.attr("copy")();
    group->writable_ = true;
    group->tensors_ = std::move(*tensors);
    group->surveys_.resize(group->tensors_.size());
    return group;
  }

  std::size_t size() const { return tensors_.size(); }

  py::array_t<std::int64_t> formats() const {
    py::array_t<std::int64_t> ids(static_cast<py::ssize_t>(tensors_.size()));
    std::int64_t* out = ids.mutable_data();
    for (const auto& t : tensors_) *out++ = static_cast<std::int64_t>(t.format);
    return ids;
  }

  // Whether any two targets share memory.
  bool overlap() const {
    std::vector<std::pair<std::uintptr_t, std::uintptr_t>> ranges;
    ranges.reserve(tensors_.size());
    for (const auto& t : tensors_) {
      const auto begin = reinterpret_cast<std::uintptr_t>(t.target);
      const std::int64_t bytes = t.size * formats::visit(t.format, [](auto f) -> std::int64_t {
                                   return sizeof(typename decltype(f)::container);
                                 });
      if (bytes != 0) ranges.emplace_back(begin, begin + static_cast<std::uintptr_t>(bytes));
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
    std::vector<ops::Survey> surveys(tensors_.size());
    const Run run(sources_);
    {
      py::gil_scoped_release release;
      const auto& e = run.executor();
      e.clip_survey(e, tensors_.data(), static_cast<std::int64_t>(tensors_.size()), norm, surveys.data());
      for (std::size_t i = 0; i < counted; ++i) {
        total.merge(surveys[i]);
        entries += tensors_[i].size;
      }
    }
    surveys_.swap(surveys);
    py::array_t<SurveyRecord> records(static_cast<py::ssize_t>(tensors_.size()));
    SurveyRecord* out = records.mutable_data();
    for (std::size_t i = 0; i < tensors_.size(); ++i) out[i] = record_of(surveys_[i], norm, tensors_[i].size);
    py::array_t<SurveyRecord> together(1);
    together.mutable_data()[0] = record_of(total, norm, entries);
    return py::make_tuple(records, together);
  }

  // Multiplies the first tensors by first * second where write is set, as the last survey found them, and then sets
  // owner[key] = values for each of `back`: all in this one call, so that no signal comes between.
  py::tuple scale(const Floats& first, const Floats& second, const Flags& write, bool zero,
                  const std::vector<py::tuple>& back) {
    std::vector<ops::ClipFactor> factors(checked_count(first, second, write));
    for (std::size_t i = 0; i < factors.size(); ++i) {
      const auto at = static_cast<py::ssize_t>(i);
      factors[i] = {first.at(at), second.at(at), write.at(at)};
    }
    return finish(
        back,
        [&](const executor::Executor& e, std::int64_t count, ops::ClipCounts* counts) {
          e.clip_scale(e, tensors_.data(), count, surveys_.data(), factors.data(), zero, counts);
        },
        factors.size());
  }

  // The same for moving entries between low and high, which are values of each tensor's format.
  py::tuple clamp(const Floats& low, const Floats& high, const Flags& write, bool zero,
                  const std::vector<py::tuple>& back) {
    std::vector<ops::ClipBounds> bounds(checked_count(low, high, write));
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      const auto at = static_cast<py::ssize_t>(i);
      bounds[i] = {low.at(at), high.at(at), write.at(at)};
    }
    return finish(
        back,
        [&](const executor::Executor& e, std::int64_t count, ops::ClipCounts* counts) {
          e.clip_clamp(e, tensors_.data(), count, bounds.data(), zero, counts);
        },
        bounds.size());
  }

 private:
  ClipGroup() = default;

  void add(const executor::ClipTensor& whole, std::int64_t rows, std::int64_t item_size) {
    base::expects(rows >= 1 && whole.size % rows == 0, "ClipGroup: rows of different sizes");
    const std::int64_t size = whole.size / rows;
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t offset = r * size * item_size;
      tensors_.push_back({size, whole.format, static_cast<const char*>(whole.source) + offset,
                          whole.target ? static_cast<char*>(whole.target) + offset : nullptr});
    }
  }

  std::size_t checked_count(const Floats& a, const Floats& b, const Flags& write) const {
    base::expects(writable_ || a.size() == 0, "ClipGroup: there are no targets");
    base::expects(
        a.size() <= static_cast<py::ssize_t>(tensors_.size()) && b.size() == a.size() && write.size() == a.size(),
        "ClipGroup: factors do not fit the tensors");
    return static_cast<std::size_t>(a.size());
  }

  template <class Work>
  py::tuple finish(const std::vector<py::tuple>& back, Work work, std::size_t count) {
    std::vector<ops::ClipCounts> counts(count);
    const Run run(sources_);
    {
      py::gil_scoped_release release;
      work(run.executor(), static_cast<std::int64_t>(count), counts.data());
    }
    for (const py::tuple& item : back)
      if (PyObject_SetItem(py::object(item[0]).ptr(), py::object(item[1]).ptr(), py::object(item[2]).ptr()) != 0)
        throw py::error_already_set();
    ops::ClipCounts total;
    for (const auto& c : counts) total.merge(c);
    return py::make_tuple(total.flushed, total.subnormal, total.overflow, total.changed);
  }

  std::vector<ArrayView> sources_, targets_;
  py::object owners_;  // of plain arrays
  bool writable_ = false;
  std::vector<executor::ClipTensor> tensors_;
  std::vector<ops::Survey> surveys_;
};

}  // namespace

void bind_clip(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(SurveyRecord, size, nan, inf, first_nonfinite, exponent, amax, mantissa);
  py::class_<ClipGroup>(m, "ClipGroup")
      .def(py::init<std::vector<ArrayView>, std::vector<ArrayView>, const std::vector<int>&,
                    const std::vector<std::int64_t>&>(),
           py::arg("sources"), py::arg("targets"), py::arg("formats"), py::arg("rows") = std::vector<std::int64_t>())
      .def_static("in_place", &ClipGroup::in_place, py::arg("arrays"), py::arg("formats"), py::arg("tensor_type"))
      .def("__len__", &ClipGroup::size)
      .def_property_readonly("formats", &ClipGroup::formats)
      .def("overlap", &ClipGroup::overlap)
      .def("survey", &ClipGroup::survey, py::arg("norm"), py::arg("counted"))
      .def("scale", &ClipGroup::scale, py::arg("first"), py::arg("second"), py::arg("write"), py::arg("zero"),
           py::arg("back"))
      .def("clamp", &ClipGroup::clamp, py::arg("low"), py::arg("high"), py::arg("write"), py::arg("zero"),
           py::arg("back"));
}

}  // namespace gradkern::bindings
