// Command echo serves an Echo application on Catamount: an *echo.Echo is an
// http.Handler. From the folder examples:
//
//	go run ./echo
//	curl -i http://127.0.0.1:9292/users -H 'Content-Type: application/json' -d '{"name": "Ada"}'
//	curl -i --compressed http://127.0.0.1:9292/readme
//	curl -i http://127.0.0.1:9292/slow
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/catamount-server/catamount"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

type user struct {
	ID   string `json:"id" param:"id"`
	Name string `json:"name"`
	Sort string `json:"sort" query:"sort"`
}

func main() {
	log.Fatal(catamount.ListenAndServe("127.0.0.1:9292", application(os.Stderr, 2*time.Second)))
}

// application logs to out and lets no request take longer than timeout.
func application(out io.Writer, timeout time.Duration) *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(out)
	e.Use(middleware.Recover(), middleware.ContextTimeout(timeout), middleware.Gzip())
	bind := func(c echo.Context) error {
		var u user
		if err := c.Bind(&u); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, u)
	}
	e.POST("/users", bind)
	e.GET("/users/:id", bind)
	e.GET("/readme", func(c echo.Context) error { return c.File("README.md") })
	e.GET("/slow", func(c echo.Context) error {
		<-c.Request().Context().Done() // a database would give up, too
		return c.Request().Context().Err()
	})
	return e
}
