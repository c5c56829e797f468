// Every tokenizer.json component type that this runtime implements: the one list that the loader
// checks against, that the test tool prints, and that frontend/tokenizer.py is compared with.
#pragma once

#include <array>
#include <string_view>

namespace fretsaw::features {

using Name = std::string_view;

inline constexpr std::array kModels = {Name("BPE"), Name("WordPiece"), Name("WordLevel")};
inline constexpr std::array kNormalizers = {
    Name("NFC"),       Name("NFD"),          Name("NFKC"),           Name("NFKD"),
    Name("Lowercase"), Name("StripAccents"), Name("BertNormalizer"), Name("Replace"),
    Name("Prepend"),   Name("Strip"),        Name("ByteLevel"),      Name("Sequence")};
inline constexpr std::array kPreTokenizers = {
    Name("ByteLevel"),        Name("Split"),       Name("Digits"),
    Name("Metaspace"),        Name("Whitespace"),  Name("WhitespaceSplit"),
    Name("BertPreTokenizer"), Name("Punctuation"), Name("CharDelimiterSplit"),
    Name("Sequence")};
inline constexpr std::array kPostProcessors = {Name("TemplateProcessing"), Name("ByteLevel"),
                                               Name("BertProcessing"), Name("RobertaProcessing"),
                                               Name("Sequence")};
inline constexpr std::array kDecoders = {
    Name("ByteLevel"), Name("Metaspace"), Name("ByteFallback"), Name("Fuse"),    Name("Strip"),
    Name("Replace"),   Name("WordPiece"), Name("BPEDecoder"),   Name("Sequence")};

}  // namespace fretsaw::features
