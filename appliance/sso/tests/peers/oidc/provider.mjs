// The OpenID provider of other people that the tests sign in at: oidc-provider, over TLS on a free port. Reads its
// settings as one line of JSON, prints its port, and ends with its standard input.
import { createPrivateKey } from 'node:crypto'
import { createServer } from 'node:https'
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(`${process.argv[2]}/package.json`)
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href)

const lines = createInterface({ input: process.stdin })
const settings = JSON.parse((await lines[Symbol.asyncIterator]().next()).value)
process.stdin.on('end', () => process.exit(0))
process.stdin.resume()

const keys = settings.pems.map((pem, at) => ({
  ...createPrivateKey(pem).export({ format: 'jwk' }),
  kid: `key-${at}`,
  use: 'sig'
}))

const server = createServer({ cert: settings.cert, key: settings.key })
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address()
  const provider = new Provider(`https://127.0.0.1:${port}`, {
    clients: [settings.client, ...(settings.others ?? [])],
    jwks: { keys },
    cookies: { keys: ['a key of the tests'] },
    conformIdTokenClaims: false,
    claims: { openid: ['sub', 'groups', 'auth_time', 'sid'] },
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384'] },
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: true },
      backchannelLogout: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({ scope: 'read write', audience: 'zixt-api', accessTokenFormat: 'opaque' })
      }
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: ['zixt-users', 'zixt-ops'] }) })
  })
  provider.on('backchannel.error', (_, error) => console.error(error))
  server.on('request', provider.callback())
  console.log(`PORT ${port}`)
})
