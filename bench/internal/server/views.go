package server

import (
	"context"
	"io"
	"log"
	"net"
	"strconv"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	hertz "github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/valyala/fasthttp"
)

// maxUpload is above the largest body of any scenario.
const maxUpload = 64 << 20

// The servers of this file have handlers of their own kind, whose requests are
// views of buffers that are used again.

func serveFasthttp(l net.Listener, spec Spec, c *content) error {
	s := &fasthttp.Server{Handler: fastHandler(spec.App, c), NoDefaultServerHeader: true, MaxRequestBodySize: maxUpload,
		Logger: log.New(io.Discard, "", 0)} // it has a line for each slow client that leaves
	return s.Serve(l)
}

func fastHandler(app string, c *content) fasthttp.RequestHandler {
	hello := func(ctx *fasthttp.RequestCtx) {
		ctx.SetContentType(plainText)
		ctx.WriteString(helloBody)
	}
	download := func(ctx *fasthttp.RequestCtx) {
		ctx.SetContentType(binaryType)
		ctx.SetBody(c.download)
	}
	return map[string]fasthttp.RequestHandler{
		Hello:   hello,
		Goodbye: hello,
		JSON: func(ctx *fasthttp.RequestCtx) {
			ctx.SetContentType(jsonType)
			ctx.Write(encodeRecords())
		},
		Upload: func(ctx *fasthttp.RequestCtx) {
			ctx.SetContentType(plainText)
			ctx.WriteString(strconv.Itoa(len(ctx.PostBody())))
		},
		Download: download,
		File:     func(ctx *fasthttp.RequestCtx) { fasthttp.ServeFileUncompressed(ctx, c.file) },
		Big: func(ctx *fasthttp.RequestCtx) {
			if string(ctx.Path()) == BigPath {
				download(ctx)
				return
			}
			hello(ctx)
		},
		Sleep: func(ctx *fasthttp.RequestCtx) {
			time.Sleep(SleepTime)
			hello(ctx)
		},
		Park: func(ctx *fasthttp.RequestCtx) {
			if string(ctx.Path()) == ParkPath {
				c.parked.wait()
			}
			hello(ctx)
		},
	}[app]
}

func serveHertz(addr string, spec Spec, c *content) error {
	hlog.SetOutput(io.Discard)
	h := hertz.New(hertz.WithHostPorts(addr), hertz.WithDisablePrintRoute(true), hertz.WithMaxRequestBodySize(maxUpload),
		hertz.WithIdleTimeout(time.Hour))
	h.Any("/*path", hertzHandler(spec.App, c))
	return h.Run()
}

func hertzHandler(name string, c *content) app.HandlerFunc {
	hello := func(_ context.Context, ctx *app.RequestContext) {
		ctx.SetContentType(plainText)
		ctx.SetBodyString(helloBody)
	}
	download := func(_ context.Context, ctx *app.RequestContext) {
		ctx.SetContentType(binaryType)
		ctx.Response.SetBodyRaw(c.download)
	}
	return map[string]app.HandlerFunc{
		Hello:   hello,
		Goodbye: hello,
		JSON: func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetContentType(jsonType)
			ctx.Response.SetBodyRaw(encodeRecords())
		},
		Upload: func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetContentType(plainText)
			ctx.SetBodyString(strconv.Itoa(len(ctx.Request.Body())))
		},
		Download: download,
		File:     func(_ context.Context, ctx *app.RequestContext) { ctx.File(c.file) },
		Big: func(base context.Context, ctx *app.RequestContext) {
			if string(ctx.Path()) == BigPath {
				download(base, ctx)
				return
			}
			hello(base, ctx)
		},
		Sleep: func(base context.Context, ctx *app.RequestContext) {
			time.Sleep(SleepTime)
			hello(base, ctx)
		},
		Park: func(base context.Context, ctx *app.RequestContext) {
			if string(ctx.Path()) == ParkPath {
				c.parked.wait()
			}
			hello(base, ctx)
		},
	}[name]
}
