/*
 * Calls: HTTP to the server. Short requests and polling, never one that is held open; certificates are always checked.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.nio.file.Files
import java.nio.file.Paths
import java.security.KeyStore
import java.security.cert.CertificateFactory
import java.time.Duration
import java.util.concurrent.ExecutionException
import java.util.concurrent.Future
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import javax.net.ssl.SSLContext
import javax.net.ssl.TrustManagerFactory
import javax.net.ssl.X509TrustManager

/** Something that goes on in the background: how far it is, and whether it should stop. */
class Work {
    volatile boolean cancelled = false
    volatile boolean ended = false
    volatile Closure onTell = { String message, double share -> }

    void tell(String message, double share = -1.0d) {
        goOn()
        onTell.call(message, share)
    }

    void goOn() { if (cancelled) throw new Cancelled() }

    void rest(long milliseconds) {
        long until = System.currentTimeMillis() + milliseconds
        while (System.currentTimeMillis() < until) {
            goOn()
            Thread.sleep(Math.max(1, Math.min(50, until - System.currentTimeMillis())))
        }
        goOn()
    }
}

class ServerCalls {
    static int CONNECT_S = 10
    static int ANSWER_S = 60
    static int CONTOURS_S = 300

    final String server
    final String key
    final Work work
    final HttpClient client

    ServerCalls(Work work) { this(work, HepamapSettings.server()) }

    private ServerCalls(Work work, String server) { this(work, server, ApiKey.read(server), HepamapSettings.text('ca_file')) }

    ServerCalls(Work work, String server, String key, String caFile) {
        this.work = work
        this.server = server
        this.key = key
        def builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(CONNECT_S))
        if (caFile) builder.sslContext(trusting(caFile))
        client = builder.build()
    }

    /** The certificates that Java trusts anyway, and those of the file. */
    static SSLContext trusting(String caFile) {
        def store = KeyStore.getInstance(KeyStore.getDefaultType())
        store.load(null, null)
        try {
            int count = 0
            Files.newInputStream(Paths.get(caFile)).withCloseable { stream ->
                CertificateFactory.getInstance('X.509').generateCertificates(stream).each { store.setCertificateEntry("own${count++}", it) }
            }
            if (count == 0) throw new IOException('it has none')
            trustOf(null).getAcceptedIssuers().each { store.setCertificateEntry("java${count++}", it) }
        } catch (Exception unreadable) {
            throw new Trouble("The certificates in ${caFile} cannot be read (${unreadable.message}). It must be a PEM file of your " +
                "organisation's certificate authority; choose it in hepamap > Settings….")
        }
        def context = SSLContext.getInstance('TLS')
        context.init(null, [trustOf(store)] as X509TrustManager[], null)
        context
    }

    static X509TrustManager trustOf(KeyStore store) {
        def factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm())
        factory.init((KeyStore) store)
        factory.getTrustManagers().find { it instanceof X509TrustManager }
    }

    Future begin(String method, String path, Object body, int seconds, Map headers = [:]) {
        def publisher = body == null ? HttpRequest.BodyPublishers.noBody() :
            body instanceof byte[] ? HttpRequest.BodyPublishers.ofByteArray((byte[]) body) :
            HttpRequest.BodyPublishers.ofString(JsonOutput.toJson(body))
        def request = HttpRequest.newBuilder(URI.create(path.startsWith('http') ? path : server + path))
            .timeout(Duration.ofSeconds(seconds)).method(method, publisher).header('Accept', 'application/json')
        if (body != null && !headers['Content-Type']) request.header('Content-Type', 'application/json')
        // Only to this server: an address that it answers with may lie elsewhere.
        if (key && (!path.startsWith('http') || path.startsWith(server + '/'))) request.header('Authorization', "Bearer ${key}".toString())
        headers.each { name, value -> request.header(name.toString(), value.toString()) }
        client.sendAsync(request.build(), HttpResponse.BodyHandlers.ofByteArray())
    }

    /** Wait for an answer of any status, and stop waiting when the work is cancelled. */
    HttpResponse finish(Future future, boolean evenIfCancelled = false) {
        long giveUp = System.currentTimeMillis() + 1000L * (CONTOURS_S + CONNECT_S)
        while (true) {
            try {
                if (!evenIfCancelled) work.goOn()
                return future.get(50, TimeUnit.MILLISECONDS)
            } catch (TimeoutException notYet) {
                if (System.currentTimeMillis() > giveUp) throw new NoAnswer(Reasons.whyNoAnswer(server, notYet))
            } catch (ExecutionException failed) {
                throw new NoAnswer(Reasons.whyNoAnswer(server, failed))
            }
        }
    }

    /** An answer of status 2xx; every other one is told as trouble. */
    HttpResponse ask(String method, String path, Object body = null, int seconds = ANSWER_S, Map headers = [:]) {
        Reasons.requireSuccess(finish(begin(method, path, body, seconds, headers)), this)
    }

    Map json(String method, String path, Object body = null, Map headers = [:]) {
        def answer = parsed(ask(method, path, body, ANSWER_S, headers).body())
        if (!(answer instanceof Map)) throw new Trouble(Reasons.notHepamap(server))
        answer
    }

    byte[] bytes(String path) { ask('GET', path, null, CONTOURS_S).body() }

    /** As `bytes`, but what was computed for long is not given up for a moment's silence. */
    byte[] bytesAtLast(String path) {
        long since = System.currentTimeMillis()
        while (true) {
            try {
                return bytes(path)
            } catch (NoAnswer gone) {
                if (System.currentTimeMillis() - since > Analysis.LOST_CONTACT_MS) throw gone
                work.tell('Waiting for the server, which does not answer just now')
                work.rest(Math.max(Analysis.POLL_MS, gone.waitMs))
            }
        }
    }

    static Object parsed(byte[] body) {
        try {
            return new JsonSlurper().parse(body, 'UTF-8')
        } catch (RuntimeException notJson) {  // not always a JsonException: an empty body ends in an index out of bounds
            return null
        }
    }

    /** Make sure that it is a hepamap that speaks our language; what it says of itself. */
    Map connect() {
        work.tell("Connecting to ${server}")
        Map version = json('GET', '/version')
        if (version.name != 'hepamap') throw new Trouble(Reasons.notHepamap(server))
        if (version.api != 'v1') {
            throw new Trouble("The hepamap at ${server} (version ${version.version}) speaks another language (${version.api}) than " +
                "this script (v1). Use the script that came with the server: ${server}/qupath/hepamap.groovy")
        }
        version
    }
}
