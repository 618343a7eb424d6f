#include "executor/registry.hpp"

#include <atomic>
#include <cstdlib>

#include "base/expects.hpp"

namespace gradkern::executor {
namespace {

std::vector<Candidate>& all() {
  static std::vector<Candidate> list;
  return list;
}

std::atomic<const Executor*> chosen{nullptr};
thread_local const Executor* chosen_device = nullptr;

std::string names() {
  std::string text;
  for (const Candidate& c : all()) {
    text += text.empty() ? "" : ", ";
    text += c.executor.name;
    if (!c.usable) text += std::string(" (") + c.why_not + ")";
  }
  return text;
}

const Executor& find(const std::string& name, const char* asked_by) {
  for (const Candidate& c : all()) {
    if (name == c.executor.name && c.usable) return c.executor;
  }
  throw base::UnsupportedIsa(std::string(asked_by) + ": '" + name + "' cannot be used here; built in: " + names());
}

}  // namespace

void register_candidates(std::vector<Candidate> list) { all() = std::move(list); }

const std::vector<Candidate>& candidates() { return all(); }

void use(const Executor* device) { chosen_device = device; }

const Executor* used_device() { return chosen_device; }

const Executor& current() { return chosen_device ? *chosen_device : host(); }

const Executor& host() {
  if (const Executor* executor = chosen) return *executor;
  const char* forced = std::getenv("GRADKERN_ISA");
  if (forced && *forced) {
    chosen = &find(forced, "GRADKERN_ISA");
  } else {
    for (const Candidate& c : all()) {
      if (c.usable) chosen = &c.executor;
    }
  }
  return *chosen.load();
}

void select(const std::string& name) { chosen = &find(name, "select_isa"); }

}  // namespace gradkern::executor
