package parser

// Defaults of Limits, one for each field whose zero value stands for it.
const (
	DefaultMethod      = 32
	DefaultTarget      = 12288
	DefaultPath        = 8192
	DefaultQuery       = 10240
	DefaultHeaderName  = 256
	DefaultHeaderValue = 80 * 1024
	DefaultHeaderCount = -1
	DefaultHead        = 112 * 1024
	DefaultBody        = -1
	DefaultChunkLine   = 4096
	DefaultChunkExcess = 16 * 1024
	DefaultTrailer     = 16 * 1024
)

// Limits bound what a client may send; all are bytes unless said otherwise.
// Most defaults are Puma's (ext/puma_http11/puma_http11.c), with the status
// codes that the RFCs have for them since.
//
// Zero stands for the default, a negative value for no limit. Parse and Decode
// want what WithDefaults returned; other Limits they complete on each call, which
// costs them a little. Fields that are changed after WithDefaults are taken as
// they are: zero then allows nothing.
type Limits struct {
	Method      int   // method; default 32; over it 501 (RFC 9112 section 3)
	Target      int   // request target; default 12288; over it 414
	Path        int   // path of the target, its first slash included; default 8192; over it 414
	Query       int   // query of the target, without '?'; default 10240; over it 414
	Fragment    int   // fragment of the target, without '#'; default none allowed, 400 (RFC 9112 section 3.2 knows none); over n > 0 414
	HeaderName  int   // field name; default 256; over it 431
	HeaderValue int   // field value from its first byte that is not whitespace to the end of the line; default 81920; over it 431
	HeaderCount int   // number of field lines; default unlimited; over it 431
	Head        int   // the whole head, from tolerated empty lines to the last CRLF; default 114688; over it 431, inside the request line 414
	Body        int64 // Content-Length; default unlimited; over it 413. The size of a chunked body is for the caller to count
	ChunkLine   int   // chunk size with its extensions, without CRLF; default 4096; over it 400
	ChunkExcess int   // what a chunked body may cost beyond what its data explains, see ChunkedDecoder; default 16384; over it 400
	Trailer     int   // trailer section with its last CRLF; default 16384; over it 431

	complete bool // made by WithDefaults
}

// defaultLimits serves callers that pass no limits at all.
var defaultLimits = Limits{}.WithDefaults()

// WithDefaults returns a copy of l with the default in place of each zero.
func (l Limits) WithDefaults() Limits {
	orDefault(&l.Method, DefaultMethod)
	orDefault(&l.Target, DefaultTarget)
	orDefault(&l.Path, DefaultPath)
	orDefault(&l.Query, DefaultQuery)
	orDefault(&l.HeaderName, DefaultHeaderName)
	orDefault(&l.HeaderValue, DefaultHeaderValue)
	orDefault(&l.HeaderCount, DefaultHeaderCount)
	orDefault(&l.Head, DefaultHead)
	orDefault(&l.Body, DefaultBody)
	orDefault(&l.ChunkLine, DefaultChunkLine)
	orDefault(&l.ChunkExcess, DefaultChunkExcess)
	orDefault(&l.Trailer, DefaultTrailer)
	l.complete = true
	return l
}

func orDefault[T int | int64](limit *T, value T) {
	if *limit == 0 {
		*limit = value
	}
}

// over reports whether n bytes are too many. The conversion makes a negative
// limit the largest one there is.
func over(n, limit int) bool { return uint(n) > uint(limit) }
