package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/tungate/tungate/admin"
)

func ExampleServer() {
	server, err := admin.New(admin.Options{Listen: "127.0.0.1:0"}, admin.Deps{
		Ready: func() error { return errors.New("the device is not up yet") },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error)
	go func() { ended <- server.Run(ctx) }()

	resp, err := http.Get("http://" + server.Addr().String() + "/readyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	fmt.Printf("%d %s", resp.StatusCode, body)

	stop()
	fmt.Println(<-ended)
	// Output:
	// 503 not ready: the device is not up yet
	// <nil>
}
