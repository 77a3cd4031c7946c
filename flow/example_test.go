package flow_test

import (
	"bufio"
	"context"
	"fmt"

	"github.com/tungate/tungate/flow"
)

// greeter is a flow.Handler that serves every TCP connection with ordinary Go code
// and nobody's datagrams.
type greeter struct{}

func (greeter) HandleTCP(_ context.Context, req flow.Request) {
	c, err := req.Accept() // the client sees its handshake completed
	if err != nil {
		return
	}
	conn := flow.NewNetConn(c)
	defer conn.Close()
	fmt.Fprintf(conn, "hello %v, this is %v\n", conn.RemoteAddr(), conn.LocalAddr())
}

func (greeter) HandleDatagram(flow.DatagramWriter, flow.ID, []byte) bool { return false }

// A handler that serves connections as net.Conn. netstack.New takes it; here a
// client in memory stands in for a stack.
func ExampleNewNetConn() {
	client, server := memPair(nil, 4096)
	greeter{}.HandleTCP(context.Background(), request{conn: server})

	line, err := bufio.NewReader(flow.NewNetConn(client)).ReadString('\n')
	fmt.Print(line, err)
	// Output:
	// hello 198.18.0.1:40000, this is 192.0.2.1:80
	// <nil>
}

// request is a flow.Request that is always accepted.
type request struct {
	flow.Request
	conn flow.Conn
}

func (r request) Accept() (flow.Conn, error) { return r.conn, nil }
