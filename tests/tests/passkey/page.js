// What a page does with passkeys: no library, nothing but what browsers have (Web Authentication level 3, section 5.1).
const post = async (path, body) => {
    const response = await fetch(path, { method: 'POST', body: body === undefined ? '' : JSON.stringify(body) });
    return response.json();
};
window.register = async (change = (options) => options) => {
    const options = change(await post('/register/begin'));
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    const credential = await navigator.credentials.create({ publicKey });
    return post('/register/end', credential.toJSON());
};
window.ask = async (change = (options) => options) => {
    const options = change(await post('/sign-in/begin'));
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
    const credential = await navigator.credentials.get({ publicKey });
    return credential.toJSON();
};
window.signIn = async (change) => post('/sign-in/end', await ask(change));
// Inside of another page: it signs in at once, and tells the page around it how that ended.
if (location.pathname === '/inside') {
    signIn().then((said) => parent.postMessage(said, '*'), (error) => parent.postMessage(String(error), '*'));
}
