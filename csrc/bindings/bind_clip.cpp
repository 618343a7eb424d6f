// Gradients looked up once, surveyed and scaled: ClipGroup.
#include <algorithm>
#include <memory>
#include <numeric>

#include "base/buffer.hpp"
#include "base/expects.hpp"
#include "base/thread_pool.hpp"
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

// body(i) for i = 0 .. count - 1, on threads where they are many.
template <class Body>
void for_each(std::size_t count, Body body) {
  constexpr std::size_t together = 2048;
  const auto parts = static_cast<std::int64_t>((count + together - 1) / together);
  base::parallel_for(parts, [&](std::int64_t part) {
    const std::size_t begin = static_cast<std::size_t>(part) * together;
    for (std::size_t i = begin; i < std::min(count, begin + together); ++i) body(i);
  });
}

// One survey a tensor, in memory that is not cleared.
class Surveys {
 public:
  explicit Surveys(std::size_t count = 0) { bytes_.resize(count * sizeof(ops::Survey)); }
  std::size_t size() const { return bytes_.size() / sizeof(ops::Survey); }
  ops::Survey* data() { return reinterpret_cast<ops::Survey*>(bytes_.data()); }
  const ops::Survey* data() const { return reinterpret_cast<const ops::Survey*>(bytes_.data()); }
  ops::Survey& operator[](std::size_t i) { return data()[i]; }
  const ops::Survey& operator[](std::size_t i) const { return data()[i]; }

 private:
  base::Buffer bytes_;
};

class ClipGroup {
 public:
  // Sources and, if they are to be clipped, targets: as many arrays of the same sizes and formats.
  ClipGroup(std::vector<ArrayView> sources, std::vector<ArrayView> targets, const std::vector<int>& format_ids)
      : sources_(std::move(sources)), targets_(std::move(targets)) {
    const std::size_t count = sources_.size();
    base::expects(count == format_ids.size() && (targets_.empty() || targets_.size() == count),
                  "ClipGroup: sources, targets and formats differ in number");
    writable_ = !targets_.empty();
    tensors_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto format = format_from(format_ids[i]);
      void* target = nullptr;
      if (!targets_.empty()) {
        base::expects(targets_[i].size() == sources_[i].size(), "ClipGroup: a source and its target differ in size");
        base::expects((targets_[i].place() == nullptr) == (sources_[i].place() == nullptr),
                      "ClipGroup: a source and its target lie in two places");
        target = writable_bits_of(targets_[i], format);
      }
      tensors_.push_back({sources_[i].size(), format, bits_of(sources_[i], format), target});
    }
  }

  // Each tensor cut into so many equal rows, tensors of their own.
  std::unique_ptr<ClipGroup> by_rows(const std::vector<std::int64_t>& rows) const {
    base::expects(rows.size() == tensors_.size(), "ClipGroup: tensors and rows differ in number");
    auto group = std::unique_ptr<ClipGroup>(new ClipGroup);
    group->sources_ = sources_;
    group->targets_ = targets_;
    group->owners_ = owners_;
    group->writable_ = writable_;
    group->rows_ = rows;
    group->tensors_.reserve(static_cast<std::size_t>(std::accumulate(rows.begin(), rows.end(), std::int64_t(0))));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& t = tensors_[i];
      base::expects(rows[i] >= 1 && t.size % rows[i] == 0, "ClipGroup: rows of different sizes");
      const std::int64_t size = t.size / rows[i], bytes = size * container_bytes(t.format);
      for (std::int64_t r = 0; r < rows[i]; ++r)
        group->tensors_.push_back({size, t.format, static_cast<const char*>(t.source) + r * bytes,
                                   t.target ? static_cast<char*>(t.target) + r * bytes : nullptr});
    }
    return group;
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
      const std::int64_t bytes = t.size * container_bytes(t.format);
      if (bytes != 0) ranges.emplace_back(begin, begin + static_cast<std::uintptr_t>(bytes));
    }
    if (!std::is_sorted(ranges.begin(), ranges.end())) std::sort(ranges.begin(), ranges.end());
    for (std::size_t i = 1; i < ranges.size(); ++i)
      if (ranges[i].first < ranges[i - 1].second) return true;
    return false;
  }

  // The records of the arrays, and that of the first `counted` tensors together; of all, where tensors are rows.
  py::tuple survey(int p, std::size_t counted) {
    base::expects(p >= 0 && p <= 2 && counted <= tensors_.size(), "ClipGroup: unknown norm, or too many tensors");
    const auto norm = static_cast<ops::Norm>(p);
    const std::size_t count = tensors_.size();
    Surveys surveys(count), arrays(rows_.size());
    ops::Survey total;
    const Run run(sources_);
    {
      py::gil_scoped_release release;
      const auto e = run.executor_of_list();
      e.clip_survey(e, tensors_.data(), static_cast<std::int64_t>(count), norm, surveys.data());
      gather(surveys, arrays);
      const Surveys& parts = rows_.empty() ? surveys : arrays;
      for (std::size_t i = 0; i < (rows_.empty() ? counted : rows_.size()); ++i) total.merge(parts[i]);
    }
    surveys_ = std::make_shared<const Surveys>(std::move(surveys));
    norm_ = norm;
    std::int64_t entries = 0;
    for (std::size_t i = 0; i < counted; ++i) entries += tensors_[i].size;
    py::array_t<SurveyRecord> together(1);
    together.mutable_data()[0] = record_of(total, norm, entries);
    return py::make_tuple(records_of(rows_.empty() ? *surveys_ : arrays), together);
  }

  // Of the last survey: the tensors' norms, as mantissas and exponents.
  py::tuple norms() const {
    const auto count = static_cast<py::ssize_t>(surveys_->size());
    Floats mantissas(count);
    py::array_t<std::int64_t> exponents(count);
    double* m = mantissas.mutable_data();
    std::int64_t* e = exponents.mutable_data();
    for_each(surveys_->size(), [&](std::size_t i) {
      const ops::ScaledNorm norm = ops::norm_of((*surveys_)[i], norm_);
      m[i] = norm.mantissa;
      e[i] = norm.exponent;
    });
    return py::make_tuple(mantissas, exponents);
  }

  // Of the last survey: how many NaNs and infinities each tensor has.
  py::tuple nonfinite() const {
    const auto count = static_cast<py::ssize_t>(surveys_->size());
    py::array_t<std::int64_t> nan(count), inf(count);
    for (std::size_t i = 0; i < surveys_->size(); ++i) {
      nan.mutable_data()[i] = (*surveys_)[i].nan;
      inf.mutable_data()[i] = (*surveys_)[i].inf;
    }
    return py::make_tuple(nan, inf);
  }

  // Multiplies the first tensors by first * second where write is set, as the last survey found them, and then sets
  // owner[key] = values for each of `back`: all in this one call, so that no signal comes between.
  py::tuple scale(const Floats& first, const Floats& second, const Flags& write, bool zero,
                  const std::vector<py::tuple>& back) {
    const auto surveys = surveys_;  // another thread may make its own meanwhile
    base::expects(surveys->size() == tensors_.size(), "ClipGroup: a survey comes first");
    std::vector<ops::ClipFactor> factors(checked_count(first, second, write, "factors"));
    for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = {first.data()[i], second.data()[i], write.data()[i]};
    return finish(
        back,
        [&](const executor::Executor& e, std::int64_t count, ops::ClipCounts* counts) {
          e.clip_scale(e, tensors_.data(), count, surveys->data(), factors.data(), zero, counts);
        },
        factors.size());
  }

  // The same for moving entries between low and high, which are values of each tensor's format.
  py::tuple clamp(const Floats& low, const Floats& high, const Flags& write, bool zero,
                  const std::vector<py::tuple>& back) {
    std::vector<ops::ClipBounds> bounds(checked_count(low, high, write, "bounds"));
    for (std::size_t i = 0; i < bounds.size(); ++i) bounds[i] = {low.data()[i], high.data()[i], write.data()[i]};
    return finish(
        back,
        [&](const executor::Executor& e, std::int64_t count, ops::ClipCounts* counts) {
          e.clip_clamp(e, tensors_.data(), count, bounds.data(), zero, counts);
        },
        bounds.size());
  }

 private:
  ClipGroup() = default;

  py::array_t<SurveyRecord> records_of(const Surveys& surveys) const {
    py::array_t<SurveyRecord> records(static_cast<py::ssize_t>(surveys.size()));
    SurveyRecord* const out = records.mutable_data();
    std::size_t row = 0;
    for (std::size_t i = 0; i < surveys.size(); ++i) {
      const std::int64_t rows = rows_.empty() ? 1 : rows_[i];
      out[i] = record_of(surveys[i], norm_, rows * tensors_[row].size);
      row += static_cast<std::size_t>(rows);
    }
    return records;
  }

  // The surveys of arrays from those of their rows, in order.
  void gather(const Surveys& surveys, Surveys& arrays) const {
    std::vector<std::size_t> begins(rows_.size() + 1);
    for (std::size_t i = 0; i < rows_.size(); ++i) begins[i + 1] = begins[i] + static_cast<std::size_t>(rows_[i]);
    base::parallel_for(static_cast<std::int64_t>(rows_.size()), [&](std::int64_t nth) {
      const auto i = static_cast<std::size_t>(nth);
      std::int64_t before = 0;
      ops::Survey whole;
      for (std::size_t r = begins[i]; r < begins[i + 1]; before += tensors_[r++].size) {
        const bool first = surveys[r].first_nonfinite >= 0 && whole.first_nonfinite < 0;
        whole.merge(surveys[r]);
        if (first) whole.first_nonfinite += before;
      }
      arrays[i] = whole;
    });
  }

  std::size_t checked_count(const Floats& a, const Floats& b, const Flags& write, const char* what) const {
    base::expects(writable_ || a.size() == 0, "ClipGroup: there are no targets");
    base::expects(
        a.size() <= static_cast<py::ssize_t>(tensors_.size()) && b.size() == a.size() && write.size() == a.size(),
        (std::string("ClipGroup: ") + what + " do not fit the tensors").c_str());
    return static_cast<std::size_t>(a.size());
  }

  template <class Work>
  py::tuple finish(const std::vector<py::tuple>& back, Work work, std::size_t count) {
    std::vector<ops::ClipCounts> counts(count);
    const Run run(sources_);
    {
      py::gil_scoped_release release;
      work(run.executor_of_list(), static_cast<std::int64_t>(count), counts.data());
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
  std::vector<std::int64_t> rows_;  // of each array, where tensors are rows
  ops::Norm norm_{};                // of the last survey
  std::shared_ptr<const Surveys> surveys_ = std::make_shared<const Surveys>();
};

}  // namespace

void bind_clip(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(SurveyRecord, size, nan, inf, first_nonfinite, exponent, amax, mantissa);
  py::class_<ClipGroup>(m, "ClipGroup")
      .def(py::init<std::vector<ArrayView>, std::vector<ArrayView>, const std::vector<int>&>(), py::arg("sources"),
           py::arg("targets"), py::arg("formats"))
      .def_static("in_place", &ClipGroup::in_place, py::arg("arrays"), py::arg("formats"), py::arg("tensor_type"))
      .def("__len__", &ClipGroup::size)
      .def_property_readonly("formats", &ClipGroup::formats)
      .def("by_rows", &ClipGroup::by_rows, py::arg("rows"))
      .def("norms", &ClipGroup::norms)
      .def("nonfinite", &ClipGroup::nonfinite)
      .def("overlap", &ClipGroup::overlap)
      .def("survey", &ClipGroup::survey, py::arg("norm"), py::arg("counted"))
      .def("scale", &ClipGroup::scale, py::arg("first"), py::arg("second"), py::arg("write"), py::arg("zero"),
           py::arg("back"))
      .def("clamp", &ClipGroup::clamp, py::arg("low"), py::arg("high"), py::arg("write"), py::arg("zero"),
           py::arg("back"));
}

}  // namespace gradkern::bindings
