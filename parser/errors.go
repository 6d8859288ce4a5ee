package parser

import (
	"errors"
	"strconv"
)

// ErrIncomplete is the "not yet" of Parse and Decode: nothing is wrong with
// the bytes so far, and more are needed.
var ErrIncomplete = errors.New("parser: incomplete")

// Error is the "never" of Parse and Decode: whatever bytes follow, this will
// not become a request. The connection cannot be used for another one, because
// nobody knows where that would begin. Errors are shared: do not modify them.
type Error struct {
	Status int    // what to answer: 400, 413, 414, 431, 501 or 505
	Reason Reason // what was wrong
	Detail string // the name of the field it was found in, if any: at most 64 bytes of it, quoted as by strconv
}

func (e *Error) Error() string {
	s := "parser: " + strconv.Itoa(e.Status) + " " + e.Reason.String()
	if e.Detail != "" {
		s += " in " + e.Detail
	}
	return s
}

// Reason says what was wrong with a request. Its String is made for keys of
// counters. Each Reason has one status.
type Reason uint8

// Reasons, in the order of a request.
const (
	ReasonTLSHello   Reason = iota // first byte is that of a TLS handshake
	ReasonEmptyLines               // too many empty lines before the request
	ReasonBareCR                   // CR without LF behind it
	ReasonBareLF                   // LF without CR before it
	ReasonBadMethod                // no token with one SP behind it
	ReasonMethodTooLong
	ReasonBadTarget     // byte that cannot be in a target, or no version behind it
	ReasonBadTargetForm // none of the four forms, or one the method has no use for
	ReasonFragment      // '#' in the target
	ReasonTargetTooLong
	ReasonPathTooLong
	ReasonQueryTooLong
	ReasonFragmentTooLong
	ReasonRequestLineTooLong // Limits.Head reached inside the request line
	ReasonBadVersion         // not HTTP/d.d with CRLF behind it
	ReasonUnsupportedVersion // neither HTTP/1.x nor the whole preface of HTTP/2
	ReasonHeadTooLong        // Limits.Head reached among the fields
	ReasonTooManyFields
	ReasonObsFold      // line begins with whitespace
	ReasonBadFieldName // no token with ':' behind it
	ReasonSpaceBeforeColon
	ReasonFieldNameTooLong
	ReasonBadFieldValue // control character
	ReasonFieldValueTooLong
	ReasonBadHost
	ReasonRepeatedHost
	ReasonMissingHost
	ReasonBadContentLength            // not one decimal number below 2^63
	ReasonRepeatedContentLength       // more than one field
	ReasonBadTransferEncoding         // empty element, or "chunked" more than once
	ReasonUnsupportedTransferEncoding // another coding than "chunked"
	ReasonTransferEncodingVersion     // Transfer-Encoding in HTTP/1.0
	ReasonLengthAndTransferEncoding   // Content-Length and Transfer-Encoding
	ReasonBadTrailer                  // Trailer announces a field on which framing depends
	ReasonBodyTooLarge
	ReasonBadChunkSize      // no hexadecimal digits with ';' or CRLF behind them
	ReasonChunkSizeOverflow // 2^63 or more, or over 16 digits
	ReasonBadChunkExtension // control character
	ReasonChunkLineTooLong
	ReasonChunkExcess // see ChunkedDecoder
	ReasonBadChunkEnd // no CRLF behind the data of a chunk
	ReasonTrailerTooLong

	NumReasons = iota // number of reasons, which are 0 to NumReasons-1
)

var reasons = [NumReasons]struct {
	name   string
	status int
}{
	ReasonTLSHello:                    {"tls_hello", 400},
	ReasonEmptyLines:                  {"empty_lines", 400},
	ReasonBareCR:                      {"bare_cr", 400},
	ReasonBareLF:                      {"bare_lf", 400},
	ReasonBadMethod:                   {"bad_method", 400},
	ReasonMethodTooLong:               {"method_too_long", 501},
	ReasonBadTarget:                   {"bad_target", 400},
	ReasonBadTargetForm:               {"bad_target_form", 400},
	ReasonFragment:                    {"fragment", 400},
	ReasonTargetTooLong:               {"target_too_long", 414},
	ReasonPathTooLong:                 {"path_too_long", 414},
	ReasonQueryTooLong:                {"query_too_long", 414},
	ReasonFragmentTooLong:             {"fragment_too_long", 414},
	ReasonRequestLineTooLong:          {"request_line_too_long", 414},
	ReasonBadVersion:                  {"bad_version", 400},
	ReasonUnsupportedVersion:          {"unsupported_version", 505},
	ReasonHeadTooLong:                 {"head_too_long", 431},
	ReasonTooManyFields:               {"too_many_fields", 431},
	ReasonObsFold:                     {"obs_fold", 400},
	ReasonBadFieldName:                {"bad_field_name", 400},
	ReasonSpaceBeforeColon:            {"space_before_colon", 400},
	ReasonFieldNameTooLong:            {"field_name_too_long", 431},
	ReasonBadFieldValue:               {"bad_field_value", 400},
	ReasonFieldValueTooLong:           {"field_value_too_long", 431},
	ReasonBadHost:                     {"bad_host", 400},
	ReasonRepeatedHost:                {"repeated_host", 400},
	ReasonMissingHost:                 {"missing_host", 400},
	ReasonBadContentLength:            {"bad_content_length", 400},
	ReasonRepeatedContentLength:       {"repeated_content_length", 400},
	ReasonBadTransferEncoding:         {"bad_transfer_encoding", 400},
	ReasonUnsupportedTransferEncoding: {"unsupported_transfer_encoding", 501},
	ReasonTransferEncodingVersion:     {"transfer_encoding_version", 400},
	ReasonLengthAndTransferEncoding:   {"length_and_transfer_encoding", 400},
	ReasonBadTrailer:                  {"bad_trailer", 400},
	ReasonBodyTooLarge:                {"body_too_large", 413},
	ReasonBadChunkSize:                {"bad_chunk_size", 400},
	ReasonChunkSizeOverflow:           {"chunk_size_overflow", 400},
	ReasonBadChunkExtension:           {"bad_chunk_extension", 400},
	ReasonChunkLineTooLong:            {"chunk_line_too_long", 400},
	ReasonChunkExcess:                 {"chunk_excess", 400},
	ReasonBadChunkEnd:                 {"bad_chunk_end", 400},
	ReasonTrailerTooLong:              {"trailer_too_long", 431},
}

// String returns a name such as "bare_lf".
func (r Reason) String() string {
	if r >= NumReasons {
		return "unknown"
	}
	return reasons[r].name
}

// plainErrors are the errors without Detail, made once because a flood of bad
// requests shall not be a flood of garbage.
var plainErrors = newPlainErrors()

func newPlainErrors() *[NumReasons]Error {
	var all [NumReasons]Error
	for r := range all {
		all[r] = Error{Status: reasons[r].status, Reason: Reason(r)}
	}
	return &all
}

func newError(r Reason, detail string) *Error {
	if detail == "" {
		return &plainErrors[r]
	}
	return &Error{Status: reasons[r].status, Reason: r, Detail: detail}
}

// maxDetail is how much of a field's name goes into an Error, in bytes: enough
// to recognise it, and too little to flood a log.
const maxDetail = 64

// detail returns the beginning of name in a form that is safe to log.
func detail(name []byte) string {
	quoted := strconv.QuoteToASCII(string(name[:min(len(name), maxDetail)]))
	return quoted[1 : len(quoted)-1]
}
