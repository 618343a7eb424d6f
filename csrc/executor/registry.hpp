// Which executors this process can use. The CPU's registers itself once per instruction set.
#pragma once

#include <string>
#include <vector>

#include "executor/kernels.hpp"

namespace gradkern::executor {

// All that were built in, usable or not, from the narrowest.
struct Candidate {
  Executor executor;
  bool usable;
  const char* why_not;
};

void register_candidates(std::vector<Candidate> candidates);
const std::vector<Candidate>& candidates();

// The device that the calling thread uses from now on, or null.
void use(const Executor* device);

// The executor in use: the calling thread's device, else GRADKERN_ISA if set, else the widest usable. Throws base::UnsupportedIsa for one that is absent.
const Executor& current();
void select(const std::string& name);

}  // namespace gradkern::executor
