package parser

// The header names a Known can stand for. The first ones bear on framing or on
// the connection, and Parse looks at their values.
const (
	KnownNone Known = iota // not a name of this table
	KnownHost
	KnownContentLength
	KnownTransferEncoding
	KnownConnection
	KnownExpect
	KnownTrailer

	KnownAccept
	KnownAcceptCharset
	KnownAcceptEncoding
	KnownAcceptLanguage
	KnownAccessControlRequestHeaders
	KnownAccessControlRequestMethod
	KnownAltUsed
	KnownAuthorization
	KnownB3
	KnownBaggage
	KnownCacheControl
	KnownCdnLoop
	KnownCfConnectingIp
	KnownCfIpcountry
	KnownCfRay
	KnownCfVisitor
	KnownContentDigest
	KnownContentDisposition
	KnownContentEncoding
	KnownContentLanguage
	KnownContentLocation
	KnownContentRange
	KnownContentType
	KnownCookie
	KnownDate
	KnownDeviceMemory
	KnownDnt
	KnownDownlink
	KnownDpr
	KnownEarlyData
	KnownEct
	KnownForwarded
	KnownFrom
	KnownHttp2Settings
	KnownIdempotencyKey
	KnownIfMatch
	KnownIfModifiedSince
	KnownIfNoneMatch
	KnownIfRange
	KnownIfUnmodifiedSince
	KnownKeepAlive
	KnownLastEventId
	KnownMaxForwards
	KnownOrigin
	KnownPragma
	KnownPriority
	KnownProxyAuthenticate
	KnownProxyAuthorization
	KnownProxyConnection
	KnownPurpose
	KnownRange
	KnownReferer
	KnownRtt
	KnownSaveData
	KnownSecChPrefersColorScheme
	KnownSecChUa
	KnownSecChUaArch
	KnownSecChUaBitness
	KnownSecChUaFullVersion
	KnownSecChUaFullVersionList
	KnownSecChUaMobile
	KnownSecChUaModel
	KnownSecChUaPlatform
	KnownSecChUaPlatformVersion
	KnownSecChUaWow64
	KnownSecFetchDest
	KnownSecFetchMode
	KnownSecFetchSite
	KnownSecFetchUser
	KnownSecGpc
	KnownSecPurpose
	KnownSecWebsocketExtensions
	KnownSecWebsocketKey
	KnownSecWebsocketProtocol
	KnownSecWebsocketVersion
	KnownSetCookie
	KnownTe
	KnownTraceparent
	KnownTracestate
	KnownTrueClientIp
	KnownUpgrade
	KnownUpgradeInsecureRequests
	KnownUserAgent
	KnownVia
	KnownViewportWidth
	KnownWwwAuthenticate
	KnownXAmznTraceId
	KnownXApiKey
	KnownXB3Sampled
	KnownXB3Spanid
	KnownXB3Traceid
	KnownXClientIp
	KnownXCloudTraceContext
	KnownXCorrelationId
	KnownXCsrfToken
	KnownXForwardedFor
	KnownXForwardedHost
	KnownXForwardedPort
	KnownXForwardedPrefix
	KnownXForwardedProto
	KnownXForwardedScheme
	KnownXForwardedServer
	KnownXForwardedSsl
	KnownXHttpMethodOverride
	KnownXRealIp
	KnownXRequestId
	KnownXRequestStart
	KnownXRequestedWith
	KnownXScheme
	KnownXTraceId

	// NumKnown is the number of values a Known can have, KnownNone included.
	NumKnown = iota
)

// lastExamined is the last of the names whose values Parse looks at.
const lastExamined = KnownTrailer

// knownNames holds the canonical spellings: those of
// net/textproto.CanonicalMIMEHeaderKey, so that they can be keys of an
// http.Header.
var knownNames = [NumKnown]string{
	KnownHost:                        "Host",
	KnownContentLength:               "Content-Length",
	KnownTransferEncoding:            "Transfer-Encoding",
	KnownConnection:                  "Connection",
	KnownExpect:                      "Expect",
	KnownTrailer:                     "Trailer",
	KnownAccept:                      "Accept",
	KnownAcceptCharset:               "Accept-Charset",
	KnownAcceptEncoding:              "Accept-Encoding",
	KnownAcceptLanguage:              "Accept-Language",
	KnownAccessControlRequestHeaders: "Access-Control-Request-Headers",
	KnownAccessControlRequestMethod:  "Access-Control-Request-Method",
	KnownAltUsed:                     "Alt-Used",
	KnownAuthorization:               "Authorization",
	KnownB3:                          "B3",
	KnownBaggage:                     "Baggage",
	KnownCacheControl:                "Cache-Control",
	KnownCdnLoop:                     "Cdn-Loop",
	KnownCfConnectingIp:              "Cf-Connecting-Ip",
	KnownCfIpcountry:                 "Cf-Ipcountry",
	KnownCfRay:                       "Cf-Ray",
	KnownCfVisitor:                   "Cf-Visitor",
	KnownContentDigest:               "Content-Digest",
	KnownContentDisposition:          "Content-Disposition",
	KnownContentEncoding:             "Content-Encoding",
	KnownContentLanguage:             "Content-Language",
	KnownContentLocation:             "Content-Location",
	KnownContentRange:                "Content-Range",
	KnownContentType:                 "Content-Type",
	KnownCookie:                      "Cookie",
	KnownDate:                        "Date",
	KnownDeviceMemory:                "Device-Memory",
	KnownDnt:                         "Dnt",
	KnownDownlink:                    "Downlink",
	KnownDpr:                         "Dpr",
	KnownEarlyData:                   "Early-Data",
	KnownEct:                         "Ect",
	KnownForwarded:                   "Forwarded",
	KnownFrom:                        "From",
	KnownHttp2Settings:               "Http2-Settings",
	KnownIdempotencyKey:              "Idempotency-Key",
	KnownIfMatch:                     "If-Match",
	KnownIfModifiedSince:             "If-Modified-Since",
	KnownIfNoneMatch:                 "If-None-Match",
	KnownIfRange:                     "If-Range",
	KnownIfUnmodifiedSince:           "If-Unmodified-Since",
	KnownKeepAlive:                   "Keep-Alive",
	KnownLastEventId:                 "Last-Event-Id",
	KnownMaxForwards:                 "Max-Forwards",
	KnownOrigin:                      "Origin",
	KnownPragma:                      "Pragma",
	KnownPriority:                    "Priority",
	KnownProxyAuthenticate:           "Proxy-Authenticate",
	KnownProxyAuthorization:          "Proxy-Authorization",
	KnownProxyConnection:             "Proxy-Connection",
	KnownPurpose:                     "Purpose",
	KnownRange:                       "Range",
	KnownReferer:                     "Referer",
	KnownRtt:                         "Rtt",
	KnownSaveData:                    "Save-Data",
	KnownSecChPrefersColorScheme:     "Sec-Ch-Prefers-Color-Scheme",
	KnownSecChUa:                     "Sec-Ch-Ua",
	KnownSecChUaArch:                 "Sec-Ch-Ua-Arch",
	KnownSecChUaBitness:              "Sec-Ch-Ua-Bitness",
	KnownSecChUaFullVersion:          "Sec-Ch-Ua-Full-Version",
	KnownSecChUaFullVersionList:      "Sec-Ch-Ua-Full-Version-List",
	KnownSecChUaMobile:               "Sec-Ch-Ua-Mobile",
	KnownSecChUaModel:                "Sec-Ch-Ua-Model",
	KnownSecChUaPlatform:             "Sec-Ch-Ua-Platform",
	KnownSecChUaPlatformVersion:      "Sec-Ch-Ua-Platform-Version",
	KnownSecChUaWow64:                "Sec-Ch-Ua-Wow64",
	KnownSecFetchDest:                "Sec-Fetch-Dest",
	KnownSecFetchMode:                "Sec-Fetch-Mode",
	KnownSecFetchSite:                "Sec-Fetch-Site",
	KnownSecFetchUser:                "Sec-Fetch-User",
	KnownSecGpc:                      "Sec-Gpc",
	KnownSecPurpose:                  "Sec-Purpose",
	KnownSecWebsocketExtensions:      "Sec-Websocket-Extensions",
	KnownSecWebsocketKey:             "Sec-Websocket-Key",
	KnownSecWebsocketProtocol:        "Sec-Websocket-Protocol",
	KnownSecWebsocketVersion:         "Sec-Websocket-Version",
	KnownSetCookie:                   "Set-Cookie",
	KnownTe:                          "Te",
	KnownTraceparent:                 "Traceparent",
	KnownTracestate:                  "Tracestate",
	KnownTrueClientIp:                "True-Client-Ip",
	KnownUpgrade:                     "Upgrade",
	KnownUpgradeInsecureRequests:     "Upgrade-Insecure-Requests",
	KnownUserAgent:                   "User-Agent",
	KnownVia:                         "Via",
	KnownViewportWidth:               "Viewport-Width",
	KnownWwwAuthenticate:             "Www-Authenticate",
	KnownXAmznTraceId:                "X-Amzn-Trace-Id",
	KnownXApiKey:                     "X-Api-Key",
	KnownXB3Sampled:                  "X-B3-Sampled",
	KnownXB3Spanid:                   "X-B3-Spanid",
	KnownXB3Traceid:                  "X-B3-Traceid",
	KnownXClientIp:                   "X-Client-Ip",
	KnownXCloudTraceContext:          "X-Cloud-Trace-Context",
	KnownXCorrelationId:              "X-Correlation-Id",
	KnownXCsrfToken:                  "X-Csrf-Token",
	KnownXForwardedFor:               "X-Forwarded-For",
	KnownXForwardedHost:              "X-Forwarded-Host",
	KnownXForwardedPort:              "X-Forwarded-Port",
	KnownXForwardedPrefix:            "X-Forwarded-Prefix",
	KnownXForwardedProto:             "X-Forwarded-Proto",
	KnownXForwardedScheme:            "X-Forwarded-Scheme",
	KnownXForwardedServer:            "X-Forwarded-Server",
	KnownXForwardedSsl:               "X-Forwarded-Ssl",
	KnownXHttpMethodOverride:         "X-Http-Method-Override",
	KnownXRealIp:                     "X-Real-Ip",
	KnownXRequestId:                  "X-Request-Id",
	KnownXRequestStart:               "X-Request-Start",
	KnownXRequestedWith:              "X-Requested-With",
	KnownXScheme:                     "X-Scheme",
	KnownXTraceId:                    "X-Trace-Id",
}
