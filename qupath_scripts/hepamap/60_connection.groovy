/*
 * Connection: the test that says which of network, address, version, key, model and slide is wrong, and what is right already.
 */
class ConnectionTest {
    final ServerCalls calls
    final List lines = []
    boolean good = true

    ConnectionTest(ServerCalls calls) { this.calls = calls }

    /** The report on the server, and on the image where one is open. */
    static Map outcome(Work work, imageData) {
        ConnectionTest test
        try {
            test = new ConnectionTest(new ServerCalls(work))
            test.look(imageData)
        } catch (Cancelled cancelled) {
            return [title: 'cancelled', text: 'You cancelled.']
        } catch (Trouble trouble) {
            return [failed: true, title: 'connection', text: ((test?.lines ?: []) + ["✗ ${trouble.message}"]).join('\n')]
        } catch (Throwable error) {
            return [failed: true, title: 'connection', text: Reasons.unforeseen(error)]
        }
        [failed: !test.good, title: test.good ? 'connection is good' : 'connection', text: test.lines.join('\n')]
    }

    private void look(imageData) {
        Map version = calls.connect()
        right("hepamap ${version.version} answers at ${calls.server}.")
        List models = (List) calls.json('GET', '/api/v1/models').items
        // Asks for the scope analyse, too, without any effect.
        Map seen = imageData == null ? calls.json('POST', '/api/v1/slides/resolve', [path: 'hepamap-test']) : SlideOnServer.resolve(imageData, calls)
        right(calls.key ? 'It accepts the key, for reading and for analyses.' : 'It asks for no key.')
        ready(models)
        if (imageData == null) lines << '– No image is open, so whether the server sees your slides was not tested.'
        else slide(seen)
    }

    private void ready(List models) {
        def answer = calls.finish(calls.begin('GET', '/health/ready', null, ServerCalls.ANSWER_S))
        def ready = ServerCalls.parsed(answer.body())
        Map checks = ready instanceof Map && ready.checks instanceof Map ? ready.checks : [:]
        Map broken = checks.findAll { !it.value.ok }
        String names = models.collect { it.default ? "${it.name} (default)" : it.name }.join(', ')
        if (models.isEmpty()) wrong('The server has no model, so it cannot analyse anything. Whoever runs it has to install one (hepamap models).')
        else if (broken.models) wrong("The server's models cannot be used: ${broken.models.detail}. Tell whoever runs it.")
        else right("It has the models ${names}.")
        if (broken.worker) wrong("No worker runs, so analyses would wait: ${broken.worker.detail}. Tell whoever runs the server.")
        broken.findAll { !(it.key in ['models', 'worker']) }.each { name, check ->
            wrong("The server is not ready (${name}): ${check.detail}. Tell whoever runs it.")
        }
    }

    private void slide(Map seen) {
        if (seen.reason == null) right("It sees the slide that is open: ${seen.slide.path}")
        else wrong(Reasons.problemText(seen.reason.code, "${seen.reason.message} ${seen.reason.cure ?: ''}".trim(), calls.server))
    }

    private void right(String text) { lines << "✓ ${text}".toString() }

    private void wrong(String text) {
        lines << "✗ ${text}".toString()
        good = false
    }
}
