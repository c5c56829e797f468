// Post-processors for one sequence: what special tokens go before and after it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tokenizer/config.h"

namespace fretsaw {

class PostProcessor {
 public:
  PostProcessor() = default;  // adds nothing
  // `last_id` is the largest id of the vocabulary. Throws ConfigFailure.
  PostProcessor(const Config& config, int32_t last_id);

  std::vector<int32_t> Apply(std::vector<int32_t> ids, bool add_special_tokens) const;

 private:
  void Add(const Config& config, int depth);
  void AddTemplate(const Config& config);
  void AddPair(const Config& config);
  int32_t Id(const Config& config) const;

  // One part of the template: the text's own ids, or fixed ids.
  struct Part {
    bool sequence = false;
    std::vector<int32_t> ids;
  };
  bool has_parts_ = false;
  std::vector<Part> parts_;
  int32_t last_id_ = 0;
};

}  // namespace fretsaw
