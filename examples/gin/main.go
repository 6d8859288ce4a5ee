// Command gin serves a gin engine on Catamount. From the folder examples:
//
//	go run ./gin
//	curl -i http://127.0.0.1:9292/books -d '{"title": "The Yearling", "pages": 428}'
//	curl -i http://127.0.0.1:9292/upload -F file=@README.md
//	curl -i -r 0-99 http://127.0.0.1:9292/readme
//	curl -iN http://127.0.0.1:9292/clock
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/gin-gonic/gin"
)

type book struct {
	Title string `json:"title" binding:"required"`
	Pages int    `json:"pages" binding:"min=1"`
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", engine(os.Stderr, time.Tick(time.Second))))
}

func engine(panics io.Writer, ticks <-chan time.Time) *gin.Engine {
	e := gin.New()
	e.Use(gin.RecoveryWithWriter(panics))
	e.POST("/books", func(c *gin.Context) {
		var b book
		if err := c.ShouldBindJSON(&b); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
			return
		}
		c.JSON(http.StatusCreated, b)
	})
	e.POST("/upload", func(c *gin.Context) {
		file, header, err := c.Request.FormFile("file")
		if err != nil {
			c.String(http.StatusBadRequest, "%v", err)
			return
		}
		defer file.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, file)
		c.String(http.StatusOK, "%s, %d bytes, %x, %v", header.Filename, n, sum.Sum(nil), err)
	})
	e.GET("/readme", func(c *gin.Context) { c.File("README.md") })
	e.GET("/clock", func(c *gin.Context) {
		c.Stream(func(w io.Writer) bool {
			select {
			case now := <-ticks:
				fmt.Fprintln(w, now.Format(time.TimeOnly))
				return true
			case <-c.Request.Context().Done():
				return false
			}
		})
	})
	return e
}
